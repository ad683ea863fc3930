package msglog

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cluster"
	"github.com/slimchat/slimchat/im"
)

const (
	victimDir        = "SLIMCHAT_MSGLOG_TEST_DIR"
	victimDurability = "SLIMCHAT_MSGLOG_TEST_DURABILITY"
	victimPerAddress = "SLIMCHAT_MSGLOG_TEST_PER_ADDRESS"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		perAddress, _ := strconv.Atoi(os.Getenv(victimPerAddress))
		if err := victim(dir, Durability(os.Getenv(victimDurability)), perAddress); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// victim is the process that gets killed: it appends at full speed and writes a line
// "seq number" for each acknowledged record.
func victim(dir string, d Durability, perAddress int) error {
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	node, err := cluster.Start(ctx, cluster.Options{DataDir: dir, Domain: testDomain, Logger: log})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	out := bufio.NewWriterSize(os.Stdout, 1<<16)
	l, err := Open(ctx, Options{
		Server: node, DataDir: dir, Durability: d, MinFree: 1 << 20, Logger: log, PerAddress: perAddress,
		OnCommitted: func() {
			mu.Lock()
			defer mu.Unlock()
			out.Flush()
		},
	})
	if err != nil {
		return err
	}
	slots := make(chan struct{}, 500)
	for i := 0; ; i++ {
		slots <- struct{}{}
		rec := message(im.User(fmt.Sprint("u", i%100)), im.User(fmt.Sprint("u", (i+1)%100)), strconv.Itoa(i), i%10 == 0)
		err := l.Append(ctx, rec, func(seq uint64, err error) {
			<-slots
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				fmt.Fprintf(out, "%d %d\n", seq, i)
			}
		})
		if err != nil {
			return err
		}
	}
}

// runVictim lets a victim that keeps so many messages of each subject (0: the default) work until it has acknowledged n records, kills it, calls cut at
// once and returns the number of each acknowledged record by its position.
func runVictim(t *testing.T, dir string, d Durability, perAddress, n int, cut func()) map[uint64]int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), victimDir+"="+dir, victimDurability+"="+string(d),
		victimPerAddress+"="+strconv.Itoa(perAddress))
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	acked := make(map[uint64]int)
	in := bufio.NewReaderSize(pipe, 1<<16)
	read := func() error {
		line, err := in.ReadString('\n')
		if err != nil {
			return err
		}
		var seq uint64
		var i int
		if _, err := fmt.Sscan(line, &seq, &i); err != nil {
			return err
		}
		acked[seq] = i
		return nil
	}
	for len(acked) < n {
		require.NoError(t, read())
	}
	require.NoError(t, cmd.Process.Kill())
	cut()
	for err == nil {
		err = read() // what it acknowledged before it died
	}
	require.ErrorIs(t, err, io.EOF)
	_ = cmd.Wait()
	return acked
}

// lost opens the log in dir and counts the acknowledged records that it does not hold. The
// log must be whole otherwise: each pair complete.
func lost(t *testing.T, dir string, perAddress int, acked map[uint64]int) int {
	t.Helper()
	e := start(t, dir, func(o *Options) { o.PerAddress = perAddress })
	defer e.stop()
	raw, err := e.log.scan(t.Context(), 0, e.log.Position())
	require.NoError(t, err)
	have := make(map[uint64]*im.Entry, len(raw))
	open := make(map[string]bool)
	for _, r := range raw {
		entry, err := r.entry()
		require.NoError(t, err)
		have[r.seq] = entry
		if entry.Flags&im.FlagHasCopy != 0 {
			open[entry.ID] = true
		} else if entry.IsCopy() {
			delete(open, entry.ID)
		}
	}
	if perAddress == 0 { // else the limit may have taken a copy and left its message
		require.Empty(t, open, "messages without their copies")
	}
	kept := make(map[string][]uint64) // positions by subject, rising
	for _, r := range raw {
		kept[r.subject] = append(kept[r.subject], r.seq)
	}
	n := 0
	for seq, i := range acked {
		if e := have[seq]; e != nil && e.ID == strconv.Itoa(i) {
			continue
		}
		// The limit takes the oldest: rightly, when so many newer ones are there.
		all := kept[im.Subject(im.User(fmt.Sprint("u", (i+1)%100)), im.User(fmt.Sprint("u", i%100)))]
		if perAddress > 0 && len(all) >= perAddress && all[len(all)-perAddress] > seq {
			continue
		}
		n++
	}
	e.append(message(alice, bob, "goes on", false))
	return n
}

// powerCut runs one round on an image and returns how much was acknowledged and lost.
func powerCut(t *testing.T, d Durability, perAddress, n int) (acked, missing int) {
	dir, image := mountImage(t, 512)
	after := filepath.Join(filepath.Dir(image), "after.img")
	got := runVictim(t, dir, d, perAddress, n, func() {
		out, err := exec.Command("cp", "--sparse=always", image, after).CombinedOutput()
		require.NoError(t, err, string(out))
	})
	return len(got), lost(t, mount(t, after), perAddress, got)
}

// What the file system image holds at the moment of the cut is what the loop device was
// told to write: all that was only in the page cache of the file system on it is lost, as
// if the power had been.
func TestPowerCut(t *testing.T) {
	for round := range 3 {
		t.Run(fmt.Sprint("disk/", round), func(t *testing.T) {
			acked, missing := powerCut(t, DurabilityDisk, 0, 20_000*(round+1))
			t.Logf("%d acknowledged, %d lost", acked, missing)
			require.Zero(t, missing)
		})
	}
	// With little kept of each conversation, blocks are being compacted and removed.
	t.Run("disk/compaction", func(t *testing.T) {
		acked, missing := powerCut(t, DurabilityDisk, 50, 60_000)
		t.Logf("%d acknowledged, %d lost", acked, missing)
		require.Zero(t, missing)
	})
	// The control: without the sync the same cut loses what was acknowledged. A round may
	// be lucky, three are not.
	t.Run("process", func(t *testing.T) {
		total := 0
		for round := 0; round < 3 && total == 0; round++ {
			t.Run(fmt.Sprint(round), func(t *testing.T) {
				acked, missing := powerCut(t, DurabilityProcess, 0, 20_000)
				t.Logf("%d acknowledged, %d lost", acked, missing)
				total += missing
			})
		}
		require.NotZero(t, total, "this test cannot tell a sync from none")
	})
}

// Losing only the process loses nothing that was acknowledged, whatever the durability.
func TestKill(t *testing.T) {
	for _, d := range []Durability{DurabilityDisk, DurabilityProcess} {
		t.Run(string(d), func(t *testing.T) {
			dir := t.TempDir()
			seen := 0
			for range 3 {
				got := runVictim(t, dir, d, 0, 5000, func() {})
				seen += len(got)
				require.Zero(t, lost(t, dir, 0, got))
			}
			t.Logf("%d acknowledged", seen)
		})
	}
}
