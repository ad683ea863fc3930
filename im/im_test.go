package im

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAddressesRoundTrip(t *testing.T) {
	for _, s := range []string{
		"user/alice", "user/alice/client/c1", "node/sensor.7", "room/r d",
		"domain/example.org/user/bob", "domain/b/user/bob/client/web*>", "user/日本",
	} {
		a, err := ParseAddress(s)
		require.NoError(t, err, s)
		require.Equal(t, s, a.String())
		if a.Domain == "" {
			to, peer, err := ParseSubject(Subject(a, User("x.y")))
			require.NoError(t, err)
			require.Equal(t, a, to)
			if a.Kind != KindRoom {
				require.Equal(t, User("x.y"), peer)
			}
		}
	}
}

func TestBadAddressesAreRefused(t *testing.T) {
	for _, s := range []string{
		"", "user", "user/", "user/a/b", "user/a+b", "user/#", "user/ a", "user/a ", "user/a\x00",
		"user/a/client/", "user/a/client/b/c", "user//client/c", "group/a", "domain/b", "domain/b/",
		"domain/B/user/a", "domain/-b/user/a", "domain/a/domain/b/user/c", "user/\xff", "node/" + strings.Repeat("x", 129),
		"user/\u0085", "user/\u00a0x",
	} {
		_, err := ParseAddress(s)
		require.Equal(t, CodeInvalidAddress, CodeOf(err), "%q", s)
	}
}

func TestTwoIDsNeverMeetInOneToken(t *testing.T) {
	seen := map[string]string{}
	for _, id := range []string{"a.b", "a=2Eb", "a%2Eb", "a_b", "a*b", "a>b", "A", "a", "é", "e\u0301"} {
		tok := EncodeToken(id)
		require.NotContains(t, seen, tok)
		seen[tok] = id
		back, err := DecodeToken(tok)
		require.NoError(t, err)
		require.Equal(t, id, back)
	}
	for _, bad := range []string{"", "=", "=2", "=2e", "=41", "a.b", "a b"} {
		_, err := DecodeToken(bad)
		require.Error(t, err, bad)
	}
}

func stamp(t *testing.T, payload string) map[string]any {
	t.Helper()
	d, err := ParseMessage([]byte(payload), false)
	require.NoError(t, err)
	out := d.AppendStamped(nil, Stamp{From: "user/alice", Client: "c1", To: "user/bob", TS: 7})
	var m map[string]any
	require.NoError(t, json.Unmarshal(out, &m), string(out))
	return m
}

func TestStampKeepsContentAndUnknownFields(t *testing.T) {
	d, err := ParseMessage([]byte(`{ "id":"1","type":"chat", "x" : [1, {"a":"}"}] ,"content": {"type":"text",  "data":"h\u0069"} ,"ts":1}`), false)
	require.NoError(t, err)
	got := string(d.AppendStamped(nil, Stamp{From: "user/a", Client: "c", To: "user/b", TS: 5}))
	require.Equal(t, `{"x":[1, {"a":"}"}],"id":"1","from":"user/a","client":"c","to":"user/b","type":"chat","thread":"","content":{"type":"text",  "data":"h\u0069"},"ts":5}`, got)
}

func TestStampedFieldsCannotBeForged(t *testing.T) {
	for _, p := range []string{
		`{"id":"1","type":"chat","content":{"type":"t"},"from":"user/alice","client":"x","ts":1,"seq":4}`,
		`{"id":"1","type":"chat","content":{"type":"t"},"fr\u006fm":"user/alice","\u0074s":99,"cl\u0069ent":"zz"}`,
		`{"id":"1","type":"chat","content":{"type":"t"},"From":"user/eve","TS":99,"Client":"zz","FROM":"user/eve"}`,
	} {
		m := stamp(t, p)
		require.Equal(t, "user/alice", m["from"])
		require.Equal(t, "c1", m["client"])
		require.EqualValues(t, 7, m["ts"])
		require.NotContains(t, m, "seq")
		var folded struct{ From, Client string }
		d, _ := ParseMessage([]byte(p), false)
		require.NoError(t, json.Unmarshal(d.AppendStamped(nil, Stamp{From: "user/alice", Client: "c1"}), &folded))
		require.Equal(t, "user/alice", folded.From)
		require.Equal(t, "c1", folded.Client)
	}
}

func TestBadMessagesNameTheField(t *testing.T) {
	ok := `"id":"1","type":"chat","content":{"type":"text"}`
	for payload, want := range map[string]string{
		``: "malformed ", `[]`: "malformed ", `{`: "malformed ", "{\"a\":\"\xff\"}": "malformed ", `"x"`: "malformed ",
		`{"type":"chat","content":{"type":"t"}}`:                                         "invalid_field id",
		`{"id":1,"type":"chat","content":{"type":"t"}}`:                                  "invalid_field id",
		`{"id":"1","content":{"type":"t"}}`:                                              "invalid_field type",
		`{"id":"1","type":"shout","content":{"type":"t"}}`:                               "invalid_field type",
		`{"id":"1","type":"chat"}`:                                                       "invalid_field content",
		`{"id":"1","type":"chat","content":"hi"}`:                                        "invalid_field content",
		`{"id":"1","type":"chat","content":{}}`:                                          "invalid_field content.type",
		`{"id":"1","type":"chat","content":{"type":1}}`:                                  "invalid_field content.type",
		`{` + ok + `,"id":"2"}`:                                                          "invalid_field id",
		`{` + ok + `,"x":1,"\u0078":2}`:                                                  "invalid_field x",
		`{` + ok + `,"thread":5}`:                                                        "invalid_field thread",
		`{` + ok + `,"x":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`:     "invalid_field x",
		`{"id":"` + strings.Repeat("x", 129) + `","type":"chat","content":{"type":"t"}}`: "invalid_field id",
	} {
		_, err := ParseMessage([]byte(payload), false)
		require.Error(t, err, payload)
		e := AsError(err)
		require.Equal(t, want, string(e.Code)+" "+e.Field, payload)
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	e := Envelope{Flags: FlagHasCopy, From: Address{Domain: "b", Kind: KindUser, ID: "x"}, Client: "c", ID: "i", TS: 5, Expires: 9,
		Props: Properties{User: []Property{{"k", "v"}, {"", ""}}, ContentType: "a", Correlation: "\x00\xff", PayloadUTF8: true}, Body: []byte("{}")}
	var back Envelope
	require.NoError(t, back.Decode(e.Append(nil)))
	require.Equal(t, e, back)
}

func TestFilters(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"$IM/#", "$IM/user/a", true}, {"#", "$IM/user/a", false}, {"+/user/a", "$IM/user/a", false},
		{"$IM/user/+", "$IM/user/a", true}, {"$IM/user/+", "$IM/user/a/client/c", false},
		{"$IM/user/a/#", "$IM/user/a", true}, {"$IM/user/a/#", "$IM/user/a/client/c", true},
		{"$IM/+/a", "$IM/node/a", true}, {"$IM/user/a", "$IM/user/A", false}, {"$IM", "$IM/user/a", false},
		{"$IM/domain/own.org/user/a", "$IM/user/a", true}, {"$IM/user/a/", "$IM/user/a", false},
		{"$IM/user/+/#", "$IM/user", false},
	} {
		f, err := ParseFilter(c.filter, "own.org")
		require.NoError(t, err, c.filter)
		require.Equal(t, c.want, f.Match(c.topic), "%s on %s", c.filter, c.topic)
	}
	for _, bad := range []string{"", "a/#/b", "a+", "#a", "a/+b", "\xff", "a\x00"} {
		_, err := ParseFilter(bad, "")
		require.Error(t, err, bad)
	}
	for filter, want := range map[string]bool{"$IM/#": true, "$IM/room/+": true, "$IM/+/x": true, "$IM/+/+": true, "$IM/room/x": false,
		"$IM/user/+": false, "$IM/room/+/#": true, "$IM/room/+/x": false, "$IM/+/+/client/+": false, "a/#": false, "$IM/+": false,
		"$IM/+/ x": false, "$IM/room/" + strings.Repeat("x", 200) + "/#": false} {
		f, err := ParseFilter(filter, "")
		require.NoError(t, err)
		require.Equal(t, want, f.CanMatchRooms(), filter)
	}
}
