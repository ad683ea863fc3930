package mqttgw_test

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// BenchmarkIdleConnections measures what a connected, subscribed and silent device costs
// the process: gateway, delivery session and runtime together. The devices' ends are bare
// sockets in the same process, which cost the kernel alone.
//
//	go test -run xxx -bench IdleConnections -benchtime 10000x ./mqttgw
func BenchmarkIdleConnections(b *testing.B) {
	n := b.N
	if !roomForFiles(2*n + 1000) {
		b.Skipf("%d files may not be open", 2*n+1000)
	}
	s := newStack(b, nil)
	addr, err := net.ResolveTCPAddr("tcp4", s.addr)
	require.NoError(b, err)
	for i := range 200 { // pools and tables reach their working size
		defer idleDevice(b, addr, fmt.Sprintf("userwarm%d", i))()
	}
	before := memoryNow(b)
	for i := range n {
		defer idleDevice(b, addr, fmt.Sprintf("user%d", i))()
	}
	after := memoryNow(b)
	per := func(a, z uint64) float64 { return (float64(z) - float64(a)) / float64(n) }
	b.ReportMetric(per(before.rss, after.rss), "rss-B/conn")
	b.ReportMetric(per(before.heap, after.heap), "heap-B/conn")
	b.ReportMetric(per(before.stack, after.stack), "stack-B/conn")
	b.ReportMetric(float64(after.goroutines-before.goroutines)/float64(n), "goroutines/conn")
	b.ReportMetric(0, "ns/op")
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

func roomForFiles(n int) bool {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return false
	}
	return limit.Cur >= uint64(n)
}

// idleDevice connects and subscribes over a bare socket; the result closes it.
func idleDevice(b *testing.B, addr *net.TCPAddr, owner string) (done func()) {
	b.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	require.NoError(b, err)
	require.NoError(b, syscall.Connect(fd, &syscall.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}))
	out := packet.AppendConnect(nil, hello(packet.V311, owner, "c"))
	out = packet.AppendSubscribe(out, packet.V311, &packet.Subscribe{PacketID: 1, Filters: []packet.Subscription{{Filter: []byte("$IM/#"), QoS: 1}}})
	_, err = syscall.Write(fd, out)
	require.NoError(b, err)
	var in [64]byte
	for got := 0; got < 4+5; {
		n, err := syscall.Read(fd, in[got:])
		require.NoError(b, err)
		require.Positive(b, n, "the gateway closed the connection of %s", owner)
		got += n
	}
	require.Equal(b, []byte{0x20, 2, 0, 0, 0x90, 3, 0, 1, 1}, in[:9])
	return func() { _ = syscall.Close(fd) }
}
