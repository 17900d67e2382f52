package output

import (
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/buddyring/buddyring/internal/member"
)

// Name returns an enum's value as people see it: PHASE_SERVICE_DOWN is
// service_down. The unspecified value is "-"; a value of a newer version is
// "unknown".
func Name(e protoreflect.Enum) string {
	if e.Number() == 0 {
		return "-"
	}
	d := e.Descriptor()
	v := d.Values().ByNumber(e.Number())
	if v == nil {
		return "unknown"
	}
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix(d)))
}

// Names returns all values of an enum but the unspecified one, as people see
// them, in the order of the proto.
func Names(d protoreflect.EnumDescriptor) []string {
	var names []string
	for i := range d.Values().Len() {
		if v := d.Values().Get(i); v.Number() != 0 {
			names = append(names, strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix(d))))
		}
	}
	return names
}

// ParseName is the inverse of Name for one field; the unspecified value cannot
// be named.
func ParseName(field string, d protoreflect.EnumDescriptor, s string) (protoreflect.EnumNumber, error) {
	v := d.Values().ByName(protoreflect.Name(prefix(d) + strings.ToUpper(s)))
	if v == nil || v.Number() == 0 {
		return 0, member.Invalid(field, "%q is not one of %s", s, strings.Join(Names(d), ", "))
	}
	return v.Number(), nil
}

// prefix is the upper snake case of the enum's name and an underscore, which
// buf's STANDARD rules demand of every value.
func prefix(d protoreflect.EnumDescriptor) string {
	var b strings.Builder
	for i, r := range string(d.Name()) {
		if i > 0 && r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(r)
	}
	return strings.ToUpper(b.String()) + "_"
}
