package server

import (
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/buddyring/buddyring/internal/member"
)

const (
	defaultPage = 100
	largestPage = 1000
)

// page is which part of a list is asked for.
type page struct {
	size int
	// after is the key of the last item of the page before, or "".
	after string
	// filter identifies the list: a token of another one is refused.
	filter uint64
}

// paged is a request for a page of a list.
type paged interface {
	proto.Message
	GetPageSize() int32
	GetPageToken() string
}

func parsePage(req paged) (page, error) {
	p := page{size: int(req.GetPageSize()), filter: fingerprint(req, "page_size", "page_token")}
	switch {
	case p.size < 0:
		return page{}, member.Invalid("page_size", "%d is negative", p.size)
	case p.size > largestPage:
		return page{}, member.Invalid("page_size", "%d is more than %d", p.size, largestPage)
	case p.size == 0:
		p.size = defaultPage
	}
	if req.GetPageToken() == "" {
		return p, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(req.GetPageToken())
	if err != nil || len(raw) < 8 || binary.BigEndian.Uint64(raw) != p.filter {
		return page{}, member.Invalid("page_token", "is not the next_page_token of this list with the same filters")
	}
	p.after = string(raw[8:])
	return p, nil
}

// token is the page_token for what comes after the item with a key.
func (p page) token(last string) string {
	raw := binary.BigEndian.AppendUint64(nil, p.filter)
	return base64.RawURLEncoding.EncodeToString(append(raw, last...))
}

// cut returns the page of a list that is sorted by key, and the token of the
// next one.
func cut[T any](all []T, p page, key func(T) string) ([]T, string) {
	start := 0
	if p.after != "" {
		i, found := slices.BinarySearchFunc(all, p.after, func(item T, after string) int {
			return strings.Compare(key(item), after)
		})
		start = i
		if found {
			start++
		}
	}
	rest := all[start:]
	if len(rest) <= p.size {
		return rest, ""
	}
	return rest[:p.size], p.token(key(rest[p.size-1]))
}

// fingerprint is a hash of a request without some of its fields. It is stable
// for one version of this program.
func fingerprint(req proto.Message, without ...protoreflect.Name) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(canonical(req, without...))
	return h.Sum64()
}

// canonical is a request as bytes, without some of its fields and with its type.
func canonical(req proto.Message, without ...protoreflect.Name) []byte {
	copied := proto.Clone(req)
	m := copied.ProtoReflect()
	for _, name := range without {
		m.Clear(m.Descriptor().Fields().ByName(name))
	}
	name := string(m.Descriptor().FullName())
	// Requests were received as valid messages, so they can be encoded.
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte(name+"\x00"), copied)
	if err != nil {
		return []byte(name)
	}
	return b
}
