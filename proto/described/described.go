// Package described has buddyring's proto files with their comments, which the
// generated code leaves out, for servers that are asked what they can do. "make
// generate" writes the files.
package described

import (
	_ "embed" // for the files
	"fmt"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

//go:embed files.binpb
var files []byte

// Resolver returns what finds all files that are linked in, buddyring's own with
// their comments. It reads them when it is asked first, and is safe for concurrent
// use.
func Resolver() protodesc.Resolver {
	return resolver{sync.OnceValue(func() *protoregistry.Files {
		own, _ := read() // without them there are still the generated ones
		return own
	})}
}

// read returns buddyring's own files.
func read() (*protoregistry.Files, error) {
	var set descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(files, &set); err != nil {
		return nil, fmt.Errorf("read descriptors: %w", err)
	}
	own := new(protoregistry.Files)
	// A program that does not link what a file imports does not serve it either.
	options := protodesc.FileOptions{AllowUnresolvable: true}
	for _, described := range set.GetFile() {
		file, err := options.New(described, resolver{func() *protoregistry.Files { return own }})
		if err != nil {
			return nil, fmt.Errorf("read descriptor: %w", err)
		}
		if err := own.RegisterFile(file); err != nil {
			return nil, fmt.Errorf("register descriptor: %w", err)
		}
	}
	return own, nil
}

type resolver struct{ own func() *protoregistry.Files }

// FindFileByPath implements protodesc.Resolver.
func (r resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if file, err := r.own().FindFileByPath(path); err == nil {
		return file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (r resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := r.own().FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}
