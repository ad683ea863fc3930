// Package msglog is the message log of a domain: one JetStream stream that every message is
// written to once, and the bucket of session records beside it.
//
// Append commits in groups. With durability disk on a single node a group is published,
// acknowledged by JetStream (its bytes are then in the block files), and made durable by
// one sync of the file system; only then are its callers told. Whatever is read through
// this package, by the tail or by cursor, is durable: nobody sees a message that a power
// cut could take back. docs/decisions/0002-commit-and-durability.md has the reasons and
// the figures.
//
// Positions are opaque but for their order.
package msglog
