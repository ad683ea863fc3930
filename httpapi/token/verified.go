package token

import (
	"crypto/sha256"
	"sync"
)

// verifiedLimit bounds how many tokens a generation remembers; about 350 bytes each.
const verifiedLimit = 16_384

// verified remembers tokens whose signature has been checked, by their SHA-256, because a
// device comes back with the same token and a storm of them would spend most of its time
// on signatures. Only what cannot change is remembered: expiry, revocation, and whether
// the key is still one of the domain's are asked anew each time. Two generations bound it;
// what is in use moves to the young one. It is safe for concurrent use.
type verified struct {
	mu         sync.Mutex
	young, old map[[sha256.Size]byte]verifiedToken
}

type verifiedToken struct {
	claims Claims
	kid    string
}

func (v *verified) get(sum [sha256.Size]byte) (verifiedToken, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	t, ok := v.young[sum]
	if ok {
		return t, true
	}
	if t, ok = v.old[sum]; ok {
		v.putLocked(sum, t)
	}
	return t, ok
}

func (v *verified) put(sum [sha256.Size]byte, t verifiedToken) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.putLocked(sum, t)
}

func (v *verified) putLocked(sum [sha256.Size]byte, t verifiedToken) {
	if v.young == nil || len(v.young) >= verifiedLimit {
		v.old, v.young = v.young, make(map[[sha256.Size]byte]verifiedToken)
	}
	v.young[sum] = t
}
