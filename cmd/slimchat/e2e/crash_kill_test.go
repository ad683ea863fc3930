package e2e

import (
	"flag"
	"math/rand/v2"
	"testing"
	"time"
)

// seedFlag repeats what a run has done, as far as timing allows: go test ./cmd/slimchat/e2e -run TestKill -seed 1234
var seedFlag = flag.Uint64("seed", 0, "seed of workloads; 0 takes a new one")

// newSeed is the seed of a workload, told in the log.
func newSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("repeat with -seed %d", seed)
	return seed
}

// roomy lifts the retention above what a workload at full speed sends.
func roomy(s *server) {
	fast(s)
	withSetting("retention.per_address", 100_000_000)(s)
}

// TestKill kills the server at random moments under full load, some of them while it starts, and checks in the end that
// nothing that was acknowledged is lost, doubled, out of order or with somebody else, and that everybody gets all of it. A
// killed process loses nothing that it has written, so both durabilities must pass.
func TestKill(t *testing.T) {
	for durability, rounds := range map[string]int{"disk": 50, "process": 10} {
		if testing.Short() {
			rounds = 8
		}
		t.Run(durability, func(t *testing.T) { killRounds(t, durability, rounds) })
	}
}

func killRounds(t *testing.T, durability string, rounds int) {
	seed := newSeed(t)
	s := startServer(t, roomy, withSetting("durability", durability))
	w := newWorkload(s, workloadOptions{seed: seed, publishers: 4, receivers: 4})
	rng := rand.New(rand.NewPCG(seed, 1))
	var down time.Duration
	starts := 0
	for range rounds {
		// A random moment of full load is what the test is about.
		time.Sleep(50*time.Millisecond + time.Duration(rng.Int64N(int64(400*time.Millisecond))))
		w.gone()
		s.kill()
		for rng.IntN(4) == 0 { // killed again before it is ready
			s.launchAndKill(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
			starts++
		}
		begin := time.Now()
		s.start()
		down += time.Since(begin)
		w.serve(s)
	}
	n := w.verify(s)
	t.Logf("durability %s, %d kills under load and %d during the start: %d messages acknowledged, none lost; a start took %s on average",
		durability, rounds, starts, n, (down / time.Duration(rounds)).Round(time.Millisecond))
}

// launchAndKill starts a process and kills it after a while, ready or not.
func (s *server) launchAndKill(after time.Duration) {
	s.t.Helper()
	if err := s.launch(); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-time.After(after):
	case <-s.exited:
		s.t.Errorf("the server ended while it was starting: %s", s.process.ProcessState)
	}
	s.kill()
}
