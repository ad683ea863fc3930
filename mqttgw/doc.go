// Package mqttgw is the MQTT gateway: it speaks MQTT 3.1.1 and 5.0 with devices over TCP,
// TLS and WebSocket. What a device publishes goes to the router, and is acknowledged when
// the router says that it is in the log; what a device may receive comes from its delivery
// session. The gateway keeps nothing that a crash could lose. docs/mqtt.md says what it
// does where the standard leaves a choice.
//
// An idle connection costs one goroutine that waits for its socket to become readable. It
// takes a buffer from a pool when there are bytes to read and gives it back when it has
// handled them; a goroutine that writes exists only while there is something to write.
// After two seconds of silence another goroutine with the smallest stack does the waiting.
//
// Locks: Gateway.mu guards the registry of connections, conn.mu one connection. The
// delivery engine calls Push, Flush and Close with its session locked and they take
// conn.mu, so nothing here calls into a session or the router while it holds conn.mu.
// Gateway.mu and conn.mu are never held together.
package mqttgw
