// Package packet reads and writes MQTT control packets, versions 3.1.1 and 5.0, in both
// directions: a server and a client need nothing else.
//
// Decoding copies nothing. [Frame] tells how many bytes the packet at the head of a buffer
// takes; the Decode methods fill structs that the caller reuses, and every slice in them
// aliases the buffer, so they hold only as long as it stays unchanged. Encoding appends to
// a slice of the caller's. Neither allocates once the structs' own slices have grown.
//
// Decoders are strict: what the standard forbids is an [*Error] that carries the MQTT 5
// reason code for it and the clause that was broken. Clauses in the form [MQTT-x.y.z-n] are
// those of MQTT 5.0; where only 3.1.1 says so they start with "3.1.1". What depends on the
// direction or on the state of a connection (a packet identifier that is in use, a
// subscription identifier sent by a client) is the business of the caller. Encoders trust
// their caller, except that a string over 65,535 bytes is cut, so that the framing holds.
package packet
