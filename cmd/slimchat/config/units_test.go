package config

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "512": 512, "512 B": 512, "64KiB": 64 << 10, "64 kib": 64 << 10, " 100 MiB ": 100 << 20, "1.5KB": 1500, "2GB": 2e9, "1TiB": 1 << 40, ".5KiB": 512,
	} {
		got, err := ParseSize(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "KiB", "-1", "1 2", "1e3", "0x10", "1.2.3KiB", "5 apples", "9999999999TiB", "99999999999999999999", "."} {
		_, err := ParseSize(text)
		require.Error(t, err, text)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "30d": 720 * time.Hour, "1d12h": 36 * time.Hour, "1.5d": 36 * time.Hour, "1d 30m": 24*time.Hour + 30*time.Minute, "250ms": 250 * time.Millisecond, " 1h30m ": 90 * time.Minute,
	} {
		got, err := ParseDuration(text)
		require.NoError(t, err, text)
		require.Equal(t, Duration(want), got, text)
	}
	for _, text := range []string{"", "30", "d", "-5s", "-1d", "1d-5h", "1h1d", "999999999d", "106751d24h", "Infd", "1e2d", "soon"} {
		_, err := ParseDuration(text)
		require.Error(t, err, text)
	}
}

func TestUnitsAreWrittenShort(t *testing.T) {
	require.Equal(t, "64KiB", Size(64<<10).String())
	require.Equal(t, "1500", Size(1500).String())
	require.Equal(t, "30d", Duration(720*time.Hour).String())
	require.Equal(t, "10m", Duration(10*time.Minute).String())
	require.Equal(t, "1h", Duration(time.Hour).String())
	require.Equal(t, "1h0m5s", Duration(time.Hour+5*time.Second).String())
	require.Equal(t, "20s", Duration(20*time.Second).String())
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"64KiB", "100 MiB", "1.5GB", "-1", "9e9", "18446744073709551615", "8191.99999PiB", "8388607.9999999TiB"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := ParseSize(text)
		if err != nil {
			return
		}
		if size < 0 {
			t.Fatalf("%q is read as %d", text, size)
		}
		if again, err := ParseSize(size.String()); err != nil || again != size {
			t.Fatalf("%q is read as %d, written as %q and read back as %d, %v", text, size, size, again, err)
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, seed := range []string{"30d", "1d12h", "1.5d", "250ms", "-5s", "106751d23h47m", "0.0000001d", "d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDuration(text)
		if err != nil {
			return
		}
		if d < 0 {
			t.Fatalf("%q is read as %d", text, d)
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Fatalf("%q is read as %d, written as %q and read back as %d, %v", text, d, d, again, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("mqtt:\n  listen: :1\n"))
	f.Add([]byte("a: &x {b: 1}\nc: *x\n"))
	f.Add([]byte("a: &x\n  b: *x\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		entries, err := parseFile("f", text)
		if err != nil {
			return
		}
		known := keysByName()
		for _, e := range entries {
			if key, ok := known[e.key]; ok {
				_ = key.set(Default(), e.value) // any error will do; a panic will not
			}
		}
	})
}
