//go:build !race

package e2e

// underRace makes the binary carry the race detector when the tests do.
const underRace = false
