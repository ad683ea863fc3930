package mqttgw

import (
	"bytes"
	"context"

	"github.com/slimchat/slimchat/delivery"
	"github.com/slimchat/slimchat/im"
	"github.com/slimchat/slimchat/mqttgw/packet"
)

var sharePrefix = []byte("$share/")

func (c *conn) onSubscribe(frame []byte) error {
	var p packet.Subscribe
	if err := p.Decode(c.version, frame); err != nil {
		return err
	}
	codes := make([]byte, len(p.Filters))
	subs := make([]delivery.Subscription, 0, len(p.Filters))
	at := make([]int, 0, len(p.Filters)) // where the answers to subs go
	for i := range p.Filters {
		s := &p.Filters[i]
		filter, code := c.parseFilter(&p, s)
		if code.Failed() {
			codes[i] = byte(code)
			continue
		}
		subs = append(subs, delivery.Subscription{Filter: filter, QoS: s.QoS, NoLocal: s.NoLocal})
		at = append(at, i)
	}
	if len(subs) > 0 {
		ctx, cancel := context.WithTimeout(c.g.ctx, c.g.opt.Timeouts.Call)
		defer cancel()
		for i, grant := range c.session.Subscribe(ctx, subs) {
			codes[at[i]] = grant.QoS
			if grant.Err != nil {
				codes[at[i]] = byte(subscribeCode(c.version, grant.Err.Code))
			}
		}
	}
	answer := packet.SubAnswer{Type: packet.SUBACK, PacketID: p.PacketID, Codes: codes}
	c.send(func(dst []byte) []byte { return packet.AppendSubAnswer(dst, c.version, &answer) })
	return nil
}

// parseFilter returns the filter, or the code to refuse it with.
func (c *conn) parseFilter(p *packet.Subscribe, s *packet.Subscription) (im.Filter, packet.Reason) {
	failed := func(r packet.Reason) (im.Filter, packet.Reason) {
		if c.version != packet.V5 {
			r = packet.SubscribeFailure311
		}
		return im.Filter{}, r
	}
	switch {
	case p.Props.Has(packet.SubscriptionID):
		return failed(packet.SubIDsNotSupported)
	case bytes.HasPrefix(s.Filter, sharePrefix):
		return failed(packet.SharedSubsNotSupported)
	}
	filter, err := im.ParseFilter(string(s.Filter), c.g.opt.Domain)
	if err != nil {
		return failed(subscribeCode(c.version, im.CodeOf(err)))
	}
	return filter, packet.Success
}

func (c *conn) onUnsubscribe(frame []byte) error {
	var p packet.Unsubscribe
	if err := p.Decode(c.version, frame); err != nil {
		return err
	}
	codes := make([]byte, len(p.Filters))
	filters := make([]im.Filter, 0, len(p.Filters))
	at := make([]int, 0, len(p.Filters))
	for i, text := range p.Filters {
		filter, err := im.ParseFilter(string(text), c.g.opt.Domain)
		if err != nil {
			codes[i] = byte(packet.InvalidTopicFilter)
			continue
		}
		filters = append(filters, filter)
		at = append(at, i)
	}
	if len(filters) > 0 {
		ctx, cancel := context.WithTimeout(c.g.ctx, c.g.opt.Timeouts.Call)
		defer cancel()
		for i, existed := range c.session.Unsubscribe(ctx, filters) {
			if !existed {
				codes[at[i]] = byte(packet.NoSubscriptionExisted)
			}
		}
	}
	answer := packet.SubAnswer{Type: packet.UNSUBACK, PacketID: p.PacketID, Codes: codes}
	c.send(func(dst []byte) []byte { return packet.AppendSubAnswer(dst, c.version, &answer) })
	return nil
}
