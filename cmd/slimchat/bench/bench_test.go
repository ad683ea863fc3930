package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cmd/slimchat/client"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

// mosquitto starts a broker that keeps everything in memory and returns its address.
func mosquitto(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/mosquitto") // Debian's place, which is not on everybody's path
	}
	if err != nil {
		t.Skip("mosquitto is not installed")
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	_, port, err := net.SplitHostPort(address)
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	conf := filepath.Join(t.TempDir(), "mosquitto.conf")
	require.NoError(t, os.WriteFile(conf, []byte("listener "+port+" 127.0.0.1\nallow_anonymous true\npersistence false\nmax_inflight_messages 1000\nmax_queued_messages 0\n"), 0o600))
	var output bytes.Buffer
	cmd := exec.Command(path, "-c", conf)
	cmd.Stdout, cmd.Stderr = &output, &output
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	})
	require.Eventually(t, func() bool {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, 10*time.Second, 20*time.Millisecond, "mosquitto does not listen: %s", &output)
	return address
}

func TestAgainstMosquitto(t *testing.T) {
	address := mosquitto(t)
	for _, version := range []packet.Version{packet.V311, packet.V5} {
		base := Options{
			Broker: client.Options{Address: address, Version: version}, Size: 200,
			Warmup: 50 * time.Millisecond, Duration: 300 * time.Millisecond, Drain: 10 * time.Second,
		}
		for name, change := range map[string]func(o *Options){
			"closed loop": func(o *Options) { o.Mode, o.Clients, o.Window = ModePairs, 5, 8 },
			"open loop":   func(o *Options) { o.Mode, o.Clients, o.Window, o.Rate = ModePairs, 3, 100, 500 },
			"fan-out":     func(o *Options) { o.Mode, o.Clients, o.Window = ModeFanout, 4, 4 },
		} {
			t.Run(fmt.Sprintf("%s/MQTT %s", name, version), func(t *testing.T) {
				o := base
				change(&o)
				report, err := Run(t.Context(), o)
				require.NoError(t, err)
				copies := int64(1)
				if o.Mode == ModeFanout {
					copies = int64(o.Clients)
				}
				require.Positive(t, report.Sent)
				require.Equal(t, report.Sent, report.Acked)
				require.Equal(t, report.Sent*copies, report.Received)
				require.Zero(t, report.Lost+report.Duplicates+report.OutOfOrder+report.Errors+report.Refused, "%+v", report)
				require.Positive(t, report.Delivery.Count)
				require.Positive(t, report.Puback.P50)
				require.LessOrEqual(t, report.Delivery.P50, report.Delivery.P99)
				require.LessOrEqual(t, report.Delivery.P99, report.Delivery.Max)
				if o.Rate > 0 {
					require.InEpsilon(t, o.Rate, report.Delivered, 0.3)
				}
			})
		}
		t.Run("connect/MQTT "+version.String(), func(t *testing.T) {
			o := base
			o.Mode, o.Clients, o.Window = ModeConnect, 4, 1
			report, err := Run(t.Context(), o)
			require.NoError(t, err)
			require.Positive(t, report.Connects)
			require.Zero(t, report.Errors, report.FirstError)
		})
	}
}

func TestInterruptedRunStillReports(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	o := Options{
		Mode: ModePairs, Broker: client.Options{Address: mosquitto(t), Version: packet.V5}, Clients: 2, Window: 2, Size: 200,
		Duration: time.Hour, Drain: time.Second,
	}
	o.Progress = func(p Progress) {
		if p.Phase == "measuring" {
			cancel()
		}
	}
	report, err := Run(ctx, o)
	require.NoError(t, err)
	require.Positive(t, report.Delivery.Count)
	require.Less(t, report.Seconds, 60.0)
}

func TestNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	for _, mode := range []Mode{ModePairs, ModeFanout, ModeConnect} {
		_, err := Run(t.Context(), Options{Mode: mode, Broker: client.Options{Address: listener.Addr().String(), Version: packet.V5}, Clients: 3, Window: 1, Size: 200, Duration: time.Second})
		require.ErrorContains(t, err, "refused", mode)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := Options{Mode: ModePairs, Clients: 1, Window: 1, Size: 200, Duration: time.Second}
	require.NoError(t, good.Check())
	for name, change := range map[string]func(o *Options){
		"mode":     func(o *Options) { o.Mode = "storm" },
		"clients":  func(o *Options) { o.Clients = 0 },
		"window":   func(o *Options) { o.Window = 65_536 },
		"size":     func(o *Options) { o.Size = 20 },
		"duration": func(o *Options) { o.Duration = 0 },
		"rate":     func(o *Options) { o.Rate = -1 },
	} {
		o := good
		change(&o)
		require.Error(t, o.Check(), name)
	}
}

func TestHistogramKnowsQuantiles(t *testing.T) {
	var h Histogram
	require.Zero(t, h.Quantile(0.5))
	values := make([]int64, 50_000)
	for i := range values {
		values[i] = int64(rand.ExpFloat64() * 5e6)
		h.Record(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999} {
		exact := float64(values[int(q*float64(len(values)))])
		require.InEpsilon(t, exact, float64(h.Quantile(q)), 0.03, "quantile %v", q)
	}
	require.Equal(t, time.Duration(values[len(values)-1]), h.Max())
	require.Equal(t, h.Max(), h.Quantile(1))
	require.EqualValues(t, len(values), h.Count())
	h.Record(-5)
	h.Record(1 << 62)
	require.Equal(t, time.Duration(1<<62), h.Max())
}

func TestEveryDurationIsInItsBucket(t *testing.T) {
	for _, v := range []int64{0, 1, 63, 64, 65, 127, 128, 1 << 20, 1<<20 + 12345, 1<<topBits - 1} {
		i := bucket(v)
		require.LessOrEqual(t, v, upper(i), "%d", v)
		if i > 0 {
			require.Greater(t, v, upper(i-1), "%d", v)
		}
	}
}

func TestPayloadIsAMessageOfTheAskedSize(t *testing.T) {
	p := newPayload("0123abcd", 77, 300)
	text := p.stamp(123456789, 42)
	require.Len(t, text, 300)
	var m struct {
		ID, Type string
		Content  struct{ Type, Data string }
	}
	require.NoError(t, json.Unmarshal(text, &m))
	require.Equal(t, "0123abcd0000004d000000000000002a", m.ID)
	require.Equal(t, "chat", m.Type)

	var s stampReader
	for _, around := range []string{"", `{"from":"user/a","x":1,`, "{"} { // a broker may put fields before the stamp
		sent, publisher, seq, ok := s.read(append([]byte(around), text...))
		require.True(t, ok)
		require.Equal(t, []uint64{123456789, 77, 42}, []uint64{uint64(sent), publisher, seq})
	}
	for _, foreign := range []string{"", "{}", `{"content":{"data":"@12"}}`, `"data":"@` + string(bytes.Repeat([]byte("z"), stampDigits))} {
		_, _, _, ok := s.read([]byte(foreign))
		require.False(t, ok, foreign)
	}
}

func TestTracker(t *testing.T) {
	var tr tracker
	for i, step := range []struct {
		seq  uint64
		want arrival
	}{{1, inOrder}, {2, inOrder}, {2, duplicate}, {5, inOrder}, {3, late}, {5, duplicate}, {4, late}, {4, duplicate}, {6, inOrder}, {1, duplicate}, {7, inOrder}} {
		require.Equal(t, step.want, tr.see(step.seq), "step %d", i)
	}
	require.EqualValues(t, 8, tr.next)
	require.Empty(t, tr.beyond)
}

func TestNoAllocationPerMessage(t *testing.T) {
	p, r := newPayload("0123abcd", 1, 200), &run{epoch: time.Now()}
	s := &subscriber{run: r, trackers: map[uint64]*tracker{}}
	var out []byte
	seq := uint64(0)
	publish := packet.Publish{QoS: 1, PacketID: 1, Topic: []byte("t")}
	message := func() {
		seq++
		publish.Payload = p.stamp(r.now(), seq)
		out = packet.AppendPublish(out[:0], packet.V5, &publish)
		s.message(publish.Payload)
	}
	message()
	require.Zero(t, testing.AllocsPerRun(1000, message))
}
