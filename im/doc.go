// Package im is SlimChat's vocabulary: addresses, topics, subjects, messages, stored
// envelopes, subscription filters and error codes. It parses, validates and encodes, and
// does nothing else: no input or output, no goroutines, no state. Every other package may
// import it and it imports none of them.
package im
