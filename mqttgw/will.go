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

// delayedWill waits for the device to come back.
type delayedWill struct{ timer *time.Timer }

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
// A delay ends with the session at the latest [MQTT-3.1.3-9]; a will whose session another
// connection goes on with is dropped.
func (g *Gateway) sendWill(c *conn, w *will, cause endCause, expiry uint32) {
	delay := w.delay
	if expiry != neverExpires {
		delay = min(delay, time.Duration(expiry)*time.Second)
	}
	key := c.principal.Key()
	if delay > 0 && (cause == endTakenOver || g.connectedAgain(key, c)) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closing {
		return
	}
	if delay == 0 {
		g.wg.Add(1)
		go func() {
			defer g.wg.Done()
			g.publishWill(c.principal, w)
		}()
		return
	}
	if old := g.wills[key]; old != nil {
		old.timer.Stop()
	}
	d := &delayedWill{}
	d.timer = time.AfterFunc(delay, func() { g.willDue(key, d, c.principal, w) })
	g.wills[key] = d
}

func (g *Gateway) willDue(key im.SessionKey, d *delayedWill, p im.Principal, w *will) {
	g.mu.Lock()
	if g.closing || g.wills[key] != d {
		g.mu.Unlock()
		return
	}
	delete(g.wills, key)
	g.wg.Add(1)
	g.mu.Unlock()
	defer g.wg.Done()
	g.publishWill(p, w)
}

// forgetWill drops the delayed will of a device that has come back.
func (g *Gateway) forgetWill(key im.SessionKey) {
	g.mu.Lock()
	if d := g.wills[key]; d != nil {
		d.timer.Stop()
		delete(g.wills, key)
	}
	g.mu.Unlock()
}

func (g *Gateway) publishWill(p im.Principal, w *will) {
	ctx, cancel := context.WithTimeout(g.ctx, g.opt.Timeouts.Call)
	defer cancel()
	g.opt.Router.Publish(ctx, p, w.publish, func(_ router.Receipt, err error) {
		if err != nil {
			g.opt.Log.Info("a will was refused", "client", p.Client, "owner", p.Address.String(), "code", im.CodeOf(err))
		}
	})
}
