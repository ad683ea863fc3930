package packet_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/slimchat/slimchat/mqttgw/packet"
)

// Whatever arrives: no panic, an *Error for what is wrong, and what was accepted encodes
// to a form that decodes to itself.
func FuzzDecode(f *testing.F) {
	for _, v := range []packet.Version{packet.V311, packet.V5} {
		for _, s := range samples(v) {
			f.Add(v == packet.V5, s.frame)
		}
	}
	f.Fuzz(func(t *testing.T, five bool, data []byte) {
		v := packet.V311
		if five {
			v = packet.V5
		}
		for len(data) > 0 {
			need, err := packet.Frame(data, 1<<20)
			if err != nil {
				checkError(t, err)
				return
			}
			if need > len(data) {
				return
			}
			checkFixedPoint(t, v, data[:need])
			data = data[need:]
		}
	})
}

func checkFixedPoint(t *testing.T, v packet.Version, frame []byte) {
	t.Helper()
	before := bytes.Clone(frame)
	once, err := reencode(v, frame)
	if !bytes.Equal(before, frame) {
		t.Fatalf("decoding changed the buffer %x", before)
	}
	if err != nil {
		checkError(t, err)
		return
	}
	twice, err := reencode(v, once)
	if err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("%s %x\n once %x\ntwice %x\n%v", v, frame, once, twice, err)
	}
}

func checkError(t *testing.T, err error) {
	t.Helper()
	var pe *packet.Error
	if !errors.As(err, &pe) || !pe.Reason.Failed() || pe.Msg == "" {
		t.Fatalf("untyped error %v", err)
	}
}

// The Reader gives the same packets as Frame, however the stream is cut.
func FuzzReader(f *testing.F) {
	var all []byte
	for _, s := range samples(packet.V5) {
		if len(s.frame) < 1000 {
			all = append(all, s.frame...)
		}
	}
	f.Add(all, uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		r := packet.NewReader(&chunks{data: data, step: int(step) + 1}, 1<<16)
		for {
			frame, err := r.Next()
			need, ferr := packet.Frame(data, 1<<16)
			if ferr != nil || need > len(data) {
				if err == nil {
					t.Fatalf("a packet where Frame has none: %x", frame)
				}
				return
			}
			if err != nil || !bytes.Equal(frame, data[:need]) {
				t.Fatalf("%v: %x, want %x", err, frame, data[:need])
			}
			data = data[need:]
		}
	})
}
