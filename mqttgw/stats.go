package mqttgw

import "sync/atomic"

// counters are the gateway's figures as they are counted.
type counters struct {
	connections, sessions, dozing               atomic.Int64
	accepted, refused, overLimit                atomic.Uint64
	packetsIn, bytesIn, writes, bytesOut        atomic.Uint64
	publishes, publishesRefused, delivered      atomic.Uint64
	acked, oversized, outputFull, blocked       atomic.Uint64
	malformed, keepAlive, takenOver, writeError atomic.Uint64
}

// Stats are the gateway's figures since its start. All but the first three only grow.
type Stats struct {
	Connections int64 // open, whether they have sent CONNECT or not
	Sessions    int64 // connected devices
	Dozing      int64 // of those, the ones that are silent and cost the least

	Accepted  uint64 // connections taken from listeners
	Refused   uint64 // CONNECTs refused
	OverLimit uint64 // connections turned away unread

	PacketsIn uint64
	BytesIn   uint64
	Writes    uint64 // to sockets; packets are coalesced
	BytesOut  uint64

	Publishes        uint64 // PUBLISH packets taken, repetitions of QoS 2 included
	PublishesRefused uint64
	Delivered        uint64 // PUBLISH packets handed to devices
	Acked            uint64 // PUBACKs of devices that matched a delivery
	Oversized        uint64 // deliveries skipped, over the device's Maximum Packet Size
	OutputFull       uint64 // pushes refused because the device reads slowly
	Blocked          uint64 // times that reading stopped for back-pressure

	Malformed   uint64 // connections ended for what they sent
	KeepAlive   uint64 // connections ended because they fell silent
	TakenOver   uint64
	WriteErrors uint64 // connections ended because a write failed or timed out
}

// Stats returns the figures; each is read by itself.
func (g *Gateway) Stats() Stats {
	n := &g.stats
	return Stats{
		Connections: n.connections.Load(), Sessions: n.sessions.Load(), Dozing: n.dozing.Load(),
		Accepted: n.accepted.Load(), Refused: n.refused.Load(), OverLimit: n.overLimit.Load(),
		PacketsIn: n.packetsIn.Load(), BytesIn: n.bytesIn.Load(),
		Writes: n.writes.Load(), BytesOut: n.bytesOut.Load(),
		Publishes: n.publishes.Load(), PublishesRefused: n.publishesRefused.Load(),
		Delivered: n.delivered.Load(), Acked: n.acked.Load(), Oversized: n.oversized.Load(),
		OutputFull: n.outputFull.Load(), Blocked: n.blocked.Load(),
		Malformed: n.malformed.Load(), KeepAlive: n.keepAlive.Load(),
		TakenOver: n.takenOver.Load(), WriteErrors: n.writeError.Load(),
	}
}
