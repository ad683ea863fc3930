// Package cluster runs the NATS server that is embedded in the process: its options,
// accounts, in-process connections, health and orderly stop. It opens no listener that
// was not asked for, and it knows nothing about what the rest of SlimChat does with it.
//
// One node is a cluster of one: the same code starts both.
package cluster
