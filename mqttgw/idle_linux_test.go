package mqttgw_test

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// The variable that makes the test program a holder of idle devices: "address first last".
const idleDevices = "SLIMCHAT_TEST_IDLE_DEVICES"

func TestMain(m *testing.M) {
	if job := os.Getenv(idleDevices); job != "" {
		if err := holdIdleDevices(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// BenchmarkIdleConnections measures what a connected, subscribed and silent device costs
// the process: gateway, delivery session and runtime together. The devices are sockets of
// another process.
//
//	go test -run xxx -bench IdleConnections -benchtime 10000x ./mqttgw
func BenchmarkIdleConnections(b *testing.B) {
	s := newStack(b, func(o *setup) { o.gateway.Timeouts.Doze = 200 * time.Millisecond })
	startIdleDevices(b, s.addr, b.N, b.N+200) // pools and tables reach their working size
	allDoze(b, s, 200)
	before := memoryNow(b)
	startIdleDevices(b, s.addr, 0, b.N)
	allDoze(b, s, b.N+200)
	after := memoryNow(b)
	per := func(a, z uint64) float64 { return (float64(z) - float64(a)) / float64(b.N) }
	b.ReportMetric(per(before.rss, after.rss), "rss-B/conn")
	b.ReportMetric(per(before.heap, after.heap), "heap-B/conn")
	b.ReportMetric(per(before.stack, after.stack), "stack-B/conn")
	b.ReportMetric(float64(after.goroutines-before.goroutines)/float64(b.N), "goroutines/conn")
	b.ReportMetric(0, "ns/op")
}

func allDoze(b *testing.B, s *stack, n int) {
	b.Helper()
	require.Eventually(b, func() bool { return s.gw.Stats().Dozing == int64(n) }, patience, 10*time.Millisecond)
}

type memory struct {
	rss, heap, stack uint64
	goroutines       int
}

func memoryNow(b *testing.B) memory {
	b.Helper()
	for range 4 { // stacks shrink by half at each collection
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	statm, err := os.ReadFile("/proc/self/statm")
	require.NoError(b, err)
	pages, err := strconv.ParseUint(strings.Fields(string(statm))[1], 10, 64)
	require.NoError(b, err)
	return memory{pages * uint64(os.Getpagesize()), m.HeapAlloc, m.StackInuse, runtime.NumGoroutine()}
}

// startIdleDevices returns once another process has connected the devices, which it holds
// until the benchmark ends.
func startIdleDevices(b *testing.B, addr string, first, last int) {
	b.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d %d", idleDevices, addr, first, last))
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	require.NoError(b, err)
	stdout, err := child.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, child.Start())
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = child.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	require.Equal(b, "ready\n", line)
}

func holdIdleDevices(job string) error {
	var addr string
	var first, last int
	if _, err := fmt.Sscan(job, &addr, &first, &last); err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return err
	}
	for i := first; i < last; i++ {
		if err := idleDevice(to, fmt.Sprintf("user%d", i)); err != nil {
			return fmt.Errorf("device %d: %w", i, err)
		}
	}
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until the other end closes
	return nil
}

// idleDevice connects and subscribes over a bare socket, which stays open.
func idleDevice(to netip.AddrPort, owner string) error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return err
	}
	out := packet.AppendConnect(nil, hello(packet.V311, owner, "c"))
	out = packet.AppendSubscribe(out, packet.V311, &packet.Subscribe{PacketID: 1, Filters: []packet.Subscription{{Filter: []byte("$IM/#"), QoS: 1}}})
	if _, err := syscall.Write(fd, out); err != nil {
		return err
	}
	var in [9]byte // CONNACK and SUBACK
	for got := 0; got < len(in); {
		n, err := syscall.Read(fd, in[got:])
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("closed after %x", in[:got])
		}
		got += n
	}
	if want := [9]byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, 1}; in != want {
		return fmt.Errorf("answered %x", in)
	}
	return nil
}
