package delivery

// inFlight is the window of messages that a client was sent and has not acknowledged.
// Its span is bounded: an unacknowledged head holds back what comes after, so that the
// cursor, which never passes an unacknowledged message, is never far behind. Not safe for
// concurrent use: it belongs to its session's lock.
type inFlight struct {
	slots  []slot
	size   int
	lastID uint16
	kept   map[uint64]uint16 // packet ids that a resumed session had used, by position
	unack  int
}

type slot struct {
	seq   uint64
	id    uint16
	acked bool
	lane  *lane
}

// room is how many more messages may be sent now.
func (w *inFlight) room() int { return w.size - len(w.slots) }

// add opens a slot and returns its packet id, and whether the client was sent this
// message under this id before (MQTT 5.0 section 4.4).
func (w *inFlight) add(seq uint64, l *lane) (id uint16, resent bool) {
	if id, resent = w.kept[seq]; resent {
		delete(w.kept, seq)
		if w.used(id) {
			id, resent = w.freshID(), true
		}
	} else {
		id = w.freshID()
	}
	w.slots = append(w.slots, slot{seq: seq, id: id, lane: l})
	w.unack++
	return id, resent
}

// undo takes back the newest slot, whose message was not sent after all.
func (w *inFlight) undo(resent bool) {
	last := len(w.slots) - 1
	if resent {
		w.kept[w.slots[last].seq] = w.slots[last].id
	}
	w.slots[last] = slot{}
	w.slots = w.slots[:last]
	w.unack--
}

func (w *inFlight) freshID() uint16 {
	for {
		w.lastID++
		if w.lastID != 0 && !w.used(w.lastID) && !w.isKept(w.lastID) {
			return w.lastID
		}
	}
}

func (w *inFlight) isKept(id uint16) bool {
	for _, k := range w.kept {
		if k == id {
			return true
		}
	}
	return false
}

func (w *inFlight) used(id uint16) bool {
	for i := range w.slots {
		if w.slots[i].id == id && !w.slots[i].acked {
			return true
		}
	}
	return false
}

// ack closes the slot of a packet id; false when there is none that is open.
func (w *inFlight) ack(id uint16) bool {
	for i := range w.slots {
		if w.slots[i].id != id || w.slots[i].acked {
			continue
		}
		w.slots[i].acked = true
		w.unack--
		w.trim()
		return true
	}
	return false
}

func (w *inFlight) trim() {
	n := 0
	for n < len(w.slots) && w.slots[n].acked {
		n++
	}
	if n == 0 {
		return
	}
	kept := copy(w.slots, w.slots[n:])
	clear(w.slots[kept:])
	w.slots = w.slots[:kept]
	if kept == 0 && cap(w.slots) > 16 {
		w.slots = nil // an idle session keeps nothing
	}
}

// lowest returns the lowest unacknowledged position for which match holds, 0 for none.
func (w *inFlight) lowest(match func(*slot) bool) uint64 {
	var low uint64
	for i := range w.slots {
		if s := &w.slots[i]; !s.acked && (low == 0 || s.seq < low) && match(s) {
			low = s.seq
		}
	}
	return low
}
