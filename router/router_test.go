package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/slimchat/slimchat/cluster"
	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/msglog"
	"github.com/slimchat/slimchat/router"
)

// people is a directory whose answers a test changes.
type people struct {
	mu      sync.Mutex
	exists  map[im.Address]bool
	clients map[string]int
	err     error
	asked   int
}

func (p *people) Exists(_ context.Context, a im.Address) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return p.exists[a], p.err
}

func (p *people) Clients(_ context.Context, uid string) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clients[uid], p.err
}

func (p *people) set(f func(*people)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

type stack struct {
	log    *msglog.Log
	engine *delivery.Engine
	router *router.Router
	people *people
}

// newStack runs a router on a real log in an embedded server.
func newStack(t *testing.T, change func(*router.Options)) *stack {
	t.Helper()
	ctx := t.Context()
	dir := t.TempDir()
	node, err := cluster.Start(ctx, cluster.Options{DataDir: dir, NodeName: "n1", Domain: "here.org"})
	require.NoError(t, err)
	log, err := msglog.Open(ctx, msglog.Options{Server: node, DataDir: dir, Durability: msglog.DurabilityProcess})
	require.NoError(t, err)
	s := &stack{log: log, people: &people{clients: map[string]int{"alice": 1, "bob": 1}, exists: map[im.Address]bool{
		im.User("alice"): true, im.User("bob"): true, im.Client("bob", "b1"): true, im.Node("sensor"): true}}}
	s.engine = delivery.New(delivery.Options{Log: log, Domain: "here.org"})
	require.NoError(t, s.engine.Start(ctx))
	o := router.Options{Domain: "here.org", Log: log, Directory: s.people, Window: s.engine.Window(), Pusher: s.engine}
	if change != nil {
		change(&o)
	}
	s.router = router.New(o)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, s.engine.Stop(ctx))
		require.NoError(t, log.Close(ctx))
		require.NoError(t, node.Stop(ctx))
	})
	return s
}

var alice = im.Principal{Address: im.User("alice"), Client: "a1", Role: "user"}

type outcome struct {
	router.Receipt
	err error
}

func (s *stack) publish(t *testing.T, from im.Principal, p router.Publish) outcome {
	t.Helper()
	got := make(chan outcome, 1)
	s.router.Publish(t.Context(), from, p, func(r router.Receipt, err error) { got <- outcome{r, err} })
	select {
	case o := <-got:
		return o
	case <-time.After(10 * time.Second):
		t.Fatal("no outcome")
		return outcome{}
	}
}

func (s *stack) read(t *testing.T, a im.Address) []*im.Entry {
	t.Helper()
	entries, _, err := s.log.Read(t.Context(), []im.Address{a}, 0, s.log.Position(), 1000, 1<<20)
	require.NoError(t, err)
	return entries
}

func chat(id, extra string) []byte {
	return []byte(`{"id":"` + id + `","type":"chat","content":{"type":"text","data":"hi"}` + extra + `}`)
}

func TestPublishStampsAndStores(t *testing.T) {
	s := newStack(t, func(o *router.Options) { o.Now = func() time.Time { return time.UnixMilli(1234) } })
	o := s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("1", `,"from":"domain/here.org/user/alice","to":"user/bob","mood":"😀"`), QoS: 1})
	require.NoError(t, o.err)
	require.Equal(t, "1", o.ID)
	require.EqualValues(t, 1234, o.TS)
	entries := s.read(t, im.User("bob"))
	require.Len(t, entries, 1)
	require.Equal(t, o.Seq, entries[0].Seq)
	require.JSONEq(t, `{"id":"1","from":"user/alice","client":"a1","to":"user/bob","type":"chat","thread":"","content":{"type":"text","data":"hi"},"ts":1234,"mood":"😀"}`, string(entries[0].Body))
	require.Empty(t, s.read(t, im.User("alice")), "alice has one client: no copy")
}

func TestSenderWithOtherClientsGetsACopy(t *testing.T) {
	s := newStack(t, nil)
	s.people.set(func(p *people) { p.clients["alice"] = 2 })
	require.NoError(t, s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("1", ""), QoS: 1}).err)
	require.NoError(t, s.publish(t, alice, router.Publish{To: im.Client("bob", "b1"), Payload: chat("2", ""), QoS: 1}).err)
	require.NoError(t, s.publish(t, alice, router.Publish{To: im.User("alice"), Payload: chat("3", ""), QoS: 1}).err)
	own := s.read(t, im.User("alice"))
	require.Len(t, own, 2)
	require.True(t, own[0].IsCopy())
	require.Equal(t, s.read(t, im.User("bob"))[0].Body, own[0].Body)
	require.False(t, own[1].IsCopy(), "what alice says to herself is one message")
	s.people.set(func(p *people) { p.clients["alice"] = 1 })
	s.router.Evict(im.User("alice"))
	require.NoError(t, s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("4", ""), QoS: 1}).err)
	require.Len(t, s.read(t, im.User("alice")), 2)
}

func TestRefusals(t *testing.T) {
	s := newStack(t, func(o *router.Options) { o.PayloadLimit = 2000 })
	bob := im.User("bob")
	for name, c := range map[string]struct {
		to      im.Address
		payload string
		code    im.Code
		field   string
	}{
		"not JSON":        {bob, "hello", im.CodeMalformed, ""},
		"too large":       {bob, string(chat("1", `,"x":"`+strings.Repeat("a", 2000)+`"`)), im.CodeTooLarge, ""},
		"forged from":     {bob, string(chat("1", `,"from":"user/eve"`)), im.CodeForgedFrom, "from"},
		"client as from":  {bob, string(chat("1", `,"from":"user/alice/client/a1"`)), im.CodeForgedFrom, "from"},
		"foreign from":    {bob, string(chat("1", `,"from":"domain/b.org/user/alice"`)), im.CodeForgedFrom, "from"},
		"wrong to":        {bob, string(chat("1", `,"to":"user/alice"`)), im.CodeWrongTo, "to"},
		"to is nothing":   {bob, string(chat("1", `,"to":"bob"`)), im.CodeInvalidAddress, "to"},
		"no such user":    {im.User("nobody"), string(chat("1", "")), im.CodeNotFound, "to"},
		"no such client":  {im.Client("bob", "b2"), string(chat("1", "")), im.CodeNotFound, "to"},
		"no such node":    {im.Node("x"), string(chat("1", "")), im.CodeNotFound, "to"},
		"a room":          {im.Room("r"), `{"id":"1","type":"grpchat","content":{"type":"text"}}`, im.CodeNotMember, "to"},
		"chat to a room":  {im.Room("r"), string(chat("1", "")), im.CodeInvalid, "type"},
		"grpchat to user": {bob, `{"id":"1","type":"grpchat","content":{"type":"text"}}`, im.CodeInvalid, "type"},
		"foreign domain":  {im.Address{Domain: "b.org", Kind: im.KindUser, ID: "bob"}, string(chat("1", "")), im.CodeUnknownDomain, "to"},
		"no id":           {bob, `{"type":"chat","content":{"type":"text"}}`, im.CodeInvalid, "id"},
	} {
		o := s.publish(t, alice, router.Publish{To: c.to, Payload: []byte(c.payload), QoS: 1})
		e := im.AsError(o.err)
		require.Equal(t, c.code, e.Code, name)
		require.Equal(t, c.field, e.Field, name)
	}
	require.Zero(t, s.log.Position(), "nothing that was refused is in the log")
}

func TestPropertiesCountAgainstThePayloadLimit(t *testing.T) {
	s := newStack(t, func(o *router.Options) { o.PayloadLimit = 2000 })
	p := router.Publish{To: im.User("bob"), Payload: chat("1", ""), QoS: 1, Props: im.Properties{Correlation: strings.Repeat("x", 1950)}}
	o := s.publish(t, alice, p)
	require.Equal(t, im.CodeTooLarge, im.CodeOf(o.err))
	require.Equal(t, "1", o.ID)
	p.Props.Correlation = "x"
	require.NoError(t, s.publish(t, alice, p).err)
}

func TestOwnDomainPrefixIsStripped(t *testing.T) {
	s := newStack(t, nil)
	to := im.Address{Domain: "here.org", Kind: im.KindUser, ID: "bob"}
	require.NoError(t, s.publish(t, alice, router.Publish{To: to, Payload: chat("1", `,"to":"domain/here.org/user/bob"`), QoS: 1}).err)
	var m struct{ To string }
	require.NoError(t, json.Unmarshal(s.read(t, im.User("bob"))[0].Body, &m))
	require.Equal(t, "user/bob", m.To)
}

func TestARepeatedMessageIsStoredOnce(t *testing.T) {
	s := newStack(t, nil)
	first := s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("1", ""), QoS: 1})
	require.NoError(t, first.err)
	again := s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("1", ""), QoS: 1})
	require.NoError(t, again.err)
	require.True(t, again.Duplicate)
	require.Equal(t, first.Seq, again.Seq)
	require.Equal(t, first.TS, again.TS)
	// The id belongs to the sender: another may use it.
	bob := im.Principal{Address: im.User("bob"), Client: "b1"}
	require.False(t, s.publish(t, bob, router.Publish{To: im.User("alice"), Payload: chat("1", ""), QoS: 1}).Duplicate)

	const n = 50
	outcomes := make(chan outcome, n)
	for range n {
		go s.router.Publish(t.Context(), alice, router.Publish{To: im.User("bob"), Payload: chat("2", ""), QoS: 1},
			func(r router.Receipt, err error) { outcomes <- outcome{r, err} })
	}
	stored := 0
	for range n {
		o := <-outcomes
		require.NoError(t, o.err)
		if !o.Duplicate {
			stored++
		}
	}
	require.Equal(t, 1, stored)
	require.Len(t, s.read(t, im.User("bob")), 2)
}

func TestARepetitionBeyondTheWindowIsFoundInTheLog(t *testing.T) {
	s := newStack(t, func(o *router.Options) { o.Window = delivery.NewWindow(time.Hour, 2) })
	for i := range 20 {
		require.NoError(t, s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat(fmt.Sprint(i), ""), QoS: 1}).err)
	}
	o := s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("3", ""), QoS: 1, Again: true})
	require.NoError(t, o.err)
	require.True(t, o.Duplicate)
	require.EqualValues(t, 4, o.Seq)
}

func TestRateLimitIsPerClient(t *testing.T) {
	now := time.Now()
	s := newStack(t, func(o *router.Options) { o.PublishRate, o.PublishBurst = 1, 3 })
	refused := 0
	for i := range 20 {
		o := s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat(fmt.Sprint(i), ""), QoS: 1})
		if o.err != nil {
			require.Equal(t, im.CodeRateLimited, im.CodeOf(o.err))
			require.Equal(t, fmt.Sprint(i), o.ID, "the sender is told which one")
			refused++
		}
	}
	require.GreaterOrEqual(t, refused, 20-3-1-int(time.Since(now).Seconds()))
	other := im.Principal{Address: im.User("alice"), Client: "a2"}
	require.NoError(t, s.publish(t, other, router.Publish{To: im.User("bob"), Payload: chat("x", ""), QoS: 1}).err)
}

func TestDirectoryIsCachedAndEvicted(t *testing.T) {
	s := newStack(t, nil)
	for i := range 5 {
		require.NoError(t, s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat(fmt.Sprint(i), ""), QoS: 1}).err)
	}
	require.Equal(t, 1, s.people.asked)
	s.people.set(func(p *people) { p.exists[im.User("bob")] = false })
	s.router.Evict(im.User("bob"))
	o := s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("6", ""), QoS: 1})
	require.Equal(t, im.CodeNotFound, im.CodeOf(o.err))
	s.people.set(func(p *people) { p.err = fmt.Errorf("database is away") })
	s.router.EvictAll()
	o = s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("7", ""), QoS: 1})
	require.Equal(t, im.CodeUnavailable, im.CodeOf(o.err), "an outage is not a refusal for good")
	require.NotContains(t, im.AsError(o.err).Message, "database")
}

func TestTransientEventsAreNotStored(t *testing.T) {
	s := newStack(t, nil)
	o := s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: []byte(`{"id":"1","type":"event","content":{"type":"typing"}}`)})
	require.NoError(t, o.err)
	require.Zero(t, o.Seq)
	require.Zero(t, s.log.Position())
	require.NoError(t, s.publish(t, alice, router.Publish{To: im.User("bob"), Payload: chat("2", "")}).err)
	require.EqualValues(t, 1, s.log.Position(), "a chat message is stored at any QoS")
}
