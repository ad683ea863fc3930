package im

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"user/a", "user/a/client/b", "domain/b.c/room/x", "node/é", "user/client/client/client"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			if CodeOf(err) != CodeInvalidAddress {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if a.String() != s {
			t.Fatalf("%q became %q", s, a)
		}
		if a.Domain != "" {
			return
		}
		to, _, err := ParseSubject(Subject(a, a))
		if err != nil || to != a {
			t.Fatalf("%q through %q: %v, %v", s, Subject(a, a), to, err)
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add("a.b", "a=2Eb")
	f.Fuzz(func(t *testing.T, a, b string) {
		ta, tb := EncodeToken(a), EncodeToken(b)
		if (a == b) != (ta == tb) {
			t.Fatalf("%q and %q meet in %q", a, b, ta)
		}
		if strings.ContainsAny(ta, ".*> \t\r\n/") {
			t.Fatalf("%q is no token", ta)
		}
		if back, err := DecodeToken(ta); a != "" && (err != nil || back != a) {
			t.Fatalf("%q came back as %q: %v", a, back, err)
		}
		if back, err := DecodeToken(a); err == nil && EncodeToken(back) != a {
			t.Fatalf("%q has two encodings", back)
		}
	})
}

func FuzzSubject(f *testing.F) {
	f.Add("im.user.a.user=2Fb")
	f.Add("im.user.a.client.b.node=2Fb")
	f.Add("im.room.a")
	f.Fuzz(func(t *testing.T, s string) {
		to, peer, err := ParseSubject(s)
		if err == nil && Subject(to, peer) != s {
			t.Fatalf("%q is read as %v from %v, which is %q", s, to, peer, Subject(to, peer))
		}
	})
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(`{"id":"1","type":"chat","content":{"type":"text","data":"hi"},"x":[{"\"":1}]}`))
	f.Add([]byte(`{"id":"1","type":"event","content":{"type":"\u0061"},"From":"eve","fr\u006fm":"user/alice"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		d, err := ParseMessage(payload, false)
		if err != nil {
			return
		}
		out := d.AppendStamped(nil, Stamp{From: "user/alice", Client: "c\"1", To: "user/bob", TS: 42})
		var got map[string]json.RawMessage
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%q is no JSON: %v", out, err)
		}
		if string(got["from"]) != `"user/alice"` || string(got["ts"]) != "42" || got["seq"] != nil {
			t.Fatalf("forged: %q", out)
		}
		if d.Content != nil && !bytes.Contains(out, append([]byte(`"content":`), d.Content...)) {
			t.Fatalf("the content of %q changed: %q", payload, out)
		}
		var sent map[string]json.RawMessage
		if err := json.Unmarshal(payload, &sent); err != nil {
			t.Fatal(err)
		}
		for k := range sent {
			if _, kept := got[k]; !kept && k != "client" && k != "seq" {
				t.Fatalf("%q lost %q: %q", payload, k, out)
			}
		}
		again, err := ParseMessage(out, false)
		if err != nil || again.ID != d.ID || again.Type != d.Type || again.Thread != d.Thread {
			t.Fatalf("%q is read back as %+v: %v", out, again, err)
		}
	})
}

func FuzzEnvelope(f *testing.F) {
	e := Envelope{From: User("a"), Client: "c", ID: "1", TS: 3, Props: Properties{User: []Property{{"a", "b"}}}, Body: []byte("{}")}
	f.Add(e.Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e Envelope
		if e.Decode(data) != nil {
			return
		}
		var back Envelope
		if err := back.Decode(e.Append(nil)); err != nil || !bytes.Equal(back.Append(nil), e.Append(nil)) {
			t.Fatalf("%+v came back as %+v: %v", e, back, err)
		}
	})
}

// matchSlowly is the definition of MQTT 5.0 section 4.7, level by level.
func matchSlowly(filter, topic []string) bool {
	switch {
	case len(filter) > 0 && filter[0] == "#":
		return true
	case len(filter) == 0 || len(topic) == 0:
		return len(filter) == len(topic)
	case filter[0] == "+" || filter[0] == topic[0]:
		return matchSlowly(filter[1:], topic[1:])
	}
	return false
}

func FuzzFilter(f *testing.F) {
	for _, s := range []string{"$IM/#", "$IM/+/a", "#", "+/user/a", "$IM/user/a/#", "$IM//a", "/"} {
		f.Add(s, "$IM/user/a")
	}
	f.Fuzz(func(t *testing.T, filter, topic string) {
		parsed, err := ParseFilter(filter, "")
		if err != nil || !utf8.ValidString(topic) {
			return
		}
		want := matchSlowly(strings.Split(filter, "/"), strings.Split(topic, "/"))
		if strings.HasPrefix(topic, "$") && (filter[0] == '+' || filter[0] == '#') {
			want = false
		}
		if got := parsed.Match(topic); got != want {
			t.Fatalf("%q on %q: %v", filter, topic, got)
		}
		if a, err := ParseTopic(topic); err == nil && a.Kind == KindRoom && a.Domain == "" && !parsed.Exact() && want && !parsed.CanMatchRooms() {
			t.Fatalf("%q matches the room %q and says it cannot", filter, topic)
		}
	})
}
