package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written with a unit: 512, 64KiB, 100 MiB, 1.5GB.
type Size int64

// sizeUnits maps the units (in lower case) to bytes; Ki, Mi and so on are powers of 1024, K, M and so on powers of 1000.
var sizeUnits = map[string]int64{
	"": 1, "b": 1,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
}

// ParseSize reads a size: a number that is not negative, maybe with a fraction, a unit (none and B are bytes) and any
// space between them. The case of the unit does not matter.
func ParseSize(s string) (Size, error) {
	number, unit := splitUnit(s)
	factor, ok := sizeUnits[strings.ToLower(unit)]
	if number == "" || !ok {
		return 0, fmt.Errorf("%q is not a size: want a number and a unit, such as 64KiB or 100 MiB", s)
	}
	if n, err := strconv.ParseInt(number, 10, 64); err == nil {
		if n > math.MaxInt64/factor {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return Size(n * factor), nil
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a size: %q is not a number", s, number)
	}
	if f *= float64(factor); f >= math.MaxInt64 {
		return 0, fmt.Errorf("%q is too large", s)
	}
	return Size(f), nil
}

// String writes the size with the largest binary unit that divides it, so that ParseSize reads the same number back.
func (s Size) String() string {
	for _, u := range []struct {
		name  string
		bytes Size
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= u.bytes && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// UnmarshalText is ParseSize.
func (s *Size) UnmarshalText(text []byte) (err error) {
	*s, err = ParseSize(string(text))
	return err
}

// Duration is a span of time, written as Go does it (1h30m, 250ms) or with d for days (30d, 1d12h).
type Duration time.Duration

// day is as long as it is on most days: durations know no calendar.
const day = 24 * time.Hour

var errDuration = errors.New("want a number and a unit, such as 30d, 12h, 10m or 500ms")

// ParseDuration reads a span of time that is not negative. Space around it is ignored.
func ParseDuration(s string) (Duration, error) {
	text := strings.TrimSpace(s)
	var total time.Duration
	if days, rest, found := strings.Cut(text, "d"); found {
		n, err := strconv.ParseFloat(days, 64)
		if err != nil || !plainNumber(days) {
			return 0, fmt.Errorf("%q is not a duration: %w", s, errDuration)
		}
		if n *= float64(day); n >= math.MaxInt64 {
			return 0, fmt.Errorf("%q is too long", s)
		}
		total, text = time.Duration(n), strings.TrimSpace(rest)
		if text == "" {
			return Duration(total), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || strings.HasPrefix(text, "-") {
		return 0, fmt.Errorf("%q is not a duration: %w", s, errDuration)
	}
	if total += d; total < 0 {
		return 0, fmt.Errorf("%q is too long", s)
	}
	return Duration(total), nil
}

// String writes whole days as such and everything else as Go does, without zero parts, so that ParseDuration reads the same span back.
func (d Duration) String() string {
	t := time.Duration(d)
	if t >= day && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	text := t.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// Std is the duration as the standard library has it.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// splitUnit cuts "100 MiB" into "100" and "MiB". The number is empty unless it is made of digits and at most a point.
func splitUnit(s string) (number, unit string) {
	s = strings.TrimSpace(s)
	i := 0
	for i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.') {
		i++
	}
	if !plainNumber(s[:i]) {
		return "", ""
	}
	return s[:i], strings.TrimSpace(s[i:])
}

// plainNumber tells whether s is digits with at most one point among them: no sign, exponent, hexadecimal or infinity.
func plainNumber(s string) bool {
	digits, points := 0, 0
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c == '.':
			points++
		default:
			return false
		}
	}
	return digits > 0 && points <= 1
}
