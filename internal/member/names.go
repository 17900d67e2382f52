package member

// String returns the name as people and the database see it, such as "active".
func (p Phase) String() string { return nameOf(phaseNames(), uint8(p)) }

// ParsePhase is the inverse of String.
func ParsePhase(s string) (Phase, error) {
	n, err := parseName("phase", phaseNames(), s)
	return Phase(n), err
}

// String returns the name as people and the database see it, such as "crashed".
func (c Cause) String() string { return nameOf(causeNames(), uint8(c)) }

// ParseCause is the inverse of String.
func ParseCause(s string) (Cause, error) {
	n, err := parseName("cause", causeNames(), s)
	return Cause(n), err
}

// String returns the name as people and the database see it, such as "drain".
func (w Wish) String() string { return nameOf(wishNames(), uint8(w)) }

// ParseWish is the inverse of String.
func ParseWish(s string) (Wish, error) {
	n, err := parseName("intent", wishNames(), s)
	return Wish(n), err
}

// String returns the name as people and the database see it, such as "enforce".
func (m Mode) String() string { return nameOf(modeNames(), uint8(m)) }

// ParseMode is the inverse of String.
func ParseMode(s string) (Mode, error) {
	n, err := parseName("mode", modeNames(), s)
	return Mode(n), err
}

// MarshalText writes the name.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads the name.
func (m *Mode) UnmarshalText(b []byte) error {
	v, err := ParseMode(string(b))
	*m = v
	return err
}

// Index 0 of each table of names is the unspecified value.

func phaseNames() []string {
	return []string{"", "joining", "active", "service_down", "draining", "held"}
}

func causeNames() []string {
	return []string{"", "crashed", "unreachable", "lossy", "shutdown", "operator"}
}

func wishNames() []string { return []string{"", "active", "drain", "maintenance", "banned"} }

func modeNames() []string { return []string{"", "enforce", "shadow", "paused"} }

func nameOf(names []string, n uint8) string {
	if int(n) < len(names) {
		return names[n]
	}
	return "unknown"
}

// parseName: the empty string is the unspecified value.
func parseName(field string, names []string, s string) (uint8, error) {
	for i, n := range names {
		if n == s {
			return uint8(i), nil
		}
	}
	return 0, Invalid(field, "%q is not one of %q", s, names[1:])
}
