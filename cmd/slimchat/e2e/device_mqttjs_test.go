package e2e

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// node is a process of Node.js with mqtt.js in it (mqttjs/driver.mjs), which holds any number of clients.
type node struct {
	mu      sync.Mutex
	in      io.Writer
	clients map[int]*mqttjs
}

// nodeEvent is a line of the driver.
type nodeEvent struct {
	N        int
	Ev       string
	Code     byte
	Present  bool
	Assigned string
	Reason   string
	Topic    string
	Payload  string
	QoS      byte
	Dup      bool
	User     [][2]string
}

// installed makes mqttjs/node_modules from its lock file, once.
var installed = sync.OnceValues(func() (string, error) {
	if _, err := os.Stat(filepath.Join("mqttjs", "node_modules", "mqtt")); err == nil {
		return "", nil
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = "mqttjs"
	out, err := cmd.CombinedOutput()
	return string(out), err
})

// newNode starts Node.js, or skips the test where there is none.
func newNode(t *testing.T) *node {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("mqtt.js needs Node.js: there is no %s", tool)
		}
	}
	out, err := installed()
	require.NoError(t, err, "npm ci: %s", out)
	cmd := exec.Command("node", "driver.mjs")
	cmd.Dir, cmd.Stderr, cmd.SysProcAttr = "mqttjs", os.Stderr, dieWithParent()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	lines, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	n := &node{in: in, clients: make(map[int]*mqttjs)}
	var reading sync.WaitGroup
	reading.Go(func() { n.read(t, lines) })
	t.Cleanup(func() {
		in.Close()
		reading.Wait()
		if err := cmd.Wait(); err != nil {
			t.Errorf("node: %v", err)
		}
	})
	return n
}

func (n *node) read(t *testing.T, lines io.Reader) {
	scanner := bufio.NewScanner(lines)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var e nodeEvent
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			t.Errorf("node says %s", scanner.Bytes())
			continue
		}
		n.mu.Lock()
		d := n.clients[e.N]
		n.mu.Unlock()
		d.handle(e)
	}
}

func (n *node) tell(t testing.TB, command any) {
	t.Helper()
	line, err := json.Marshal(command)
	require.NoError(t, err)
	n.mu.Lock()
	defer n.mu.Unlock()
	_, err = n.in.Write(append(line, '\n'))
	require.NoError(t, err)
}

// mqttjs is one client in the process.
type mqttjs struct {
	*arrivals
	node    *node
	n       int
	answers chan nodeEvent // to the commands, one each
}

func (n *node) connect(s *server, version int, how dialing) (device, connack) {
	s.t.Helper()
	d := &mqttjs{arrivals: newArrivals(s.t, how.login), node: n, answers: make(chan nodeEvent, 16)}
	n.mu.Lock()
	d.n = len(n.clients) + 1
	n.clients[d.n] = d
	n.mu.Unlock()
	url := how.URL
	if url == "" {
		url = "ws://" + s.addr.HTTP + "/mqtt"
	}
	options := map[string]any{
		"protocolVersion": version, "clientId": how.Client, "username": how.User, "password": how.Token,
		"clean": how.Clean, "keepalive": keepAlive(how),
	}
	if version == 5 {
		options["properties"] = map[string]any{"sessionExpiryInterval": how.Expiry}
	}
	if w := how.Will; w != nil {
		options["will"] = map[string]any{"topic": w.Topic, "payload": w.Payload, "qos": w.QoS}
	}
	answer := d.ask(map[string]any{"n": d.n, "op": "connect", "url": url, "options": options}, "connack")
	ack := connack{Code: answer.Code, Present: answer.Present, Assigned: answer.Assigned, Reason: answer.Reason}
	if ack.Code != 0 {
		return nil, ack
	}
	return d, ack
}

func (d *mqttjs) handle(e nodeEvent) {
	switch e.Ev {
	case "message":
		d.add(delivered{Topic: e.Topic, QoS: e.QoS, Dup: e.Dup, User: e.User, Body: e.Payload})
	case "disconnect":
		d.disconnected(e.Code, e.Reason)
	case "closed":
		d.end()
	case "error": // a close follows
	default:
		d.answers <- e
	}
}

// ask sends a command and waits for its answer.
func (d *mqttjs) ask(command map[string]any, want string) nodeEvent {
	d.t.Helper()
	d.node.tell(d.t, command)
	select {
	case e := <-d.answers:
		require.Equal(d.t, want, e.Ev)
		return e
	case <-time.After(patience):
		d.t.Fatalf("mqtt.js waits in vain for %s", want)
		return nodeEvent{}
	}
}

func (d *mqttjs) subscribe(filter string) byte {
	d.t.Helper()
	return d.ask(map[string]any{"n": d.n, "op": "subscribe", "filter": filter, "qos": 1}, "suback").Code
}

func (d *mqttjs) publish(qos byte, topic, payload string) outcome {
	d.t.Helper()
	e := d.ask(map[string]any{"n": d.n, "op": "publish", "topic": topic, "payload": payload, "qos": qos}, "puback")
	return outcome{Code: e.Code, Reason: e.Reason}
}

func (d *mqttjs) disconnect() { d.leave("disconnect") }

func (d *mqttjs) drop() {
	if d.alive() {
		d.leave("drop")
	}
}

func (d *mqttjs) leave(how string) {
	d.node.tell(d.t, map[string]any{"n": d.n, "op": how})
	<-d.closed
}
