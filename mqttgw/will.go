package mqttgw

import (
	"bytes"
	"context"
	"time"

	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
	"github.com/slimchat/slimchat/router"
)

// will is the message that a device leaves for the case that it vanishes (section 3.1.2.5).
type will struct {
	publish router.Publish // with memory of its own
	delay   time.Duration
}

// size is what holding the will costs, in bytes.
func (w *will) size() int {
	p := &w.publish.Props
	n := 512 + len(w.publish.Payload) + len(p.ContentType) + len(p.ResponseTopic) + len(p.Correlation)
	for _, u := range p.User {
		n += 32 + len(u.Key) + len(u.Value)
	}
	return n
}

// delayOf is how long the will waits: until the session's end [MQTT-3.1.3-9] and for an hour at
// the longest.
func (w *will) delayOf(expiry uint32) time.Duration {
	delay := min(w.delay, longestWillDelay)
	if expiry != neverExpires {
		delay = min(delay, time.Duration(expiry)*time.Second)
	}
	return delay
}

// delayedWill waits for the device to come back.
type delayedWill struct {
	timer *time.Timer
	size  int
}

// heldWills are the delayed wills of a gateway, bounded in bytes. Gateway.mu guards them.
type heldWills struct {
	limits  *Limits
	byKey   map[im.SessionKey]*delayedWill
	bytes   int
	byOwner map[im.Address]int // bytes
}

func newHeldWills(limits *Limits) heldWills {
	return heldWills{limits: limits, byKey: make(map[im.SessionKey]*delayedWill), byOwner: make(map[im.Address]int)}
}

func (h *heldWills) fits(owner im.Address, size int) bool {
	return h.bytes+size <= h.limits.Wills && h.byOwner[owner]+size <= h.limits.WillsPerPrincipal
}

func (h *heldWills) add(key im.SessionKey, d *delayedWill) {
	h.byKey[key] = d
	h.bytes += d.size
	h.byOwner[key.Owner] += d.size
}

// drop forgets a client's will, if it has one; it will not be due any more.
func (h *heldWills) drop(key im.SessionKey) {
	d := h.byKey[key]
	if d == nil {
		return
	}
	d.timer.Stop()
	delete(h.byKey, key)
	h.bytes -= d.size
	if h.byOwner[key.Owner] -= d.size; h.byOwner[key.Owner] <= 0 {
		delete(h.byOwner, key.Owner)
	}
}

func (h *heldWills) dropAll() {
	for key := range h.byKey {
		h.drop(key)
	}
}

// newWill copies the will out of a CONNECT. The error is an *im.Error for its topic.
func newWill(p *packet.Connect, domain string) (*will, error) {
	to, err := im.ParseTopic(string(p.WillTopic))
	if err != nil {
		return nil, err
	}
	w := &will{delay: time.Duration(p.WillProps.Uint(packet.WillDelay, 0)) * time.Second}
	w.publish = router.Publish{
		To: to.Local(domain), Payload: bytes.Clone(p.WillPayload), QoS: p.WillQoS,
		Expiry: expiryOf(&p.WillProps), Props: propertiesOf(&p.WillProps),
	}
	return w, nil
}

// sendWill publishes the will of a connection that has ended, at once or after its delay.
// A will whose session another connection goes on with is dropped.
func (g *Gateway) sendWill(c *conn, w *will, cause endCause, expiry uint32) {
	delay := w.delayOf(expiry)
	key := c.principal.Key()
	if delay > 0 && (cause == endTakenOver || g.connectedAgain(key, c)) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return
	}
	g.wills.drop(key)
	principal := c.principal // what waits must not hold on to the connection
	if size := w.size(); delay > 0 && g.wills.fits(key.Owner, size) {
		d := &delayedWill{size: size}
		d.timer = time.AfterFunc(delay, func() { g.willDue(key, d, principal, w) })
		g.wills.add(key, d)
		return
	}
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		g.publishWill(principal, w)
	}()
}

func (g *Gateway) willDue(key im.SessionKey, d *delayedWill, p im.Principal, w *will) {
	g.mu.Lock()
	if g.closing || g.wills.byKey[key] != d {
		g.mu.Unlock()
		return
	}
	g.wills.drop(key)
	g.wg.Add(1)
	g.mu.Unlock()
	defer g.wg.Done()
	g.publishWill(p, w)
}

// forgetWill drops the delayed will of a device that has come back.
func (g *Gateway) forgetWill(key im.SessionKey) {
	g.mu.Lock()
	g.wills.drop(key)
	g.mu.Unlock()
}

// publishWill speaks for a client that is gone, if it may still speak: its login may have
// been revoked since.
func (g *Gateway) publishWill(p im.Principal, w *will) {
	if g.opt.Revoked(p.Ticket) {
		g.opt.Log.Info("a will was dropped, for its login was revoked", "client", p.Client, "owner", p.Address.String())
		return
	}
	ctx, cancel := context.WithTimeout(g.ctx, g.opt.Timeouts.Call)
	defer cancel()
	g.opt.Router.Publish(ctx, p, w.publish, func(_ router.Receipt, err error) {
		if err != nil {
			g.opt.Log.Info("a will was refused", "client", p.Client, "owner", p.Address.String(), "code", im.CodeOf(err))
		}
	})
}
