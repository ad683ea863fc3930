package im

// objectScanner walks the fields of one JSON object without decoding the values. Its
// input must have passed json.Valid: it finds ends, it does not check syntax.
type objectScanner struct {
	data    []byte
	pos     int
	deepest int // the deepest nesting that value has stepped over
}

// open steps into the object; it tells whether there is one.
func (s *objectScanner) open() bool {
	s.space()
	if s.pos >= len(s.data) || s.data[s.pos] != '{' {
		return false
	}
	s.pos++
	return true
}

// next returns the raw key (with its quotes) and the raw value of the next field.
func (s *objectScanner) next() (key, value []byte, ok bool) {
	s.space()
	if s.pos < len(s.data) && s.data[s.pos] == ',' {
		s.pos++
		s.space()
	}
	if s.pos >= len(s.data) || s.data[s.pos] != '"' {
		return nil, nil, false
	}
	key = s.value()
	s.space()
	s.pos++ // the colon
	s.space()
	return key, s.value(), true
}

func (s *objectScanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// value returns the raw value that starts at the position and steps over it.
func (s *objectScanner) value() []byte {
	start, depth := s.pos, 0
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case '"':
			s.str()
			if depth == 0 {
				return s.data[start:s.pos]
			}
			continue
		case '{', '[':
			depth++
			s.deepest = max(s.deepest, depth)
		case '}', ']':
			if depth == 0 { // the end of the object around a bare value
				return s.data[start:s.pos]
			}
			depth--
			if depth == 0 {
				s.pos++
				return s.data[start:s.pos]
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return s.data[start:s.pos]
			}
		}
		s.pos++
	}
	return s.data[start:s.pos]
}

// str steps over the string that starts at the position.
func (s *objectScanner) str() {
	for s.pos++; s.pos < len(s.data); s.pos++ {
		switch s.data[s.pos] {
		case '\\':
			s.pos++
		case '"':
			s.pos++
			return
		}
	}
}
