package described_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
	"github.com/buddyring/buddyring/proto/described"
)

// The files are those of the generated code, with a comment on each service.
func TestFiles(t *testing.T) {
	t.Parallel()
	files := described.Resolver()
	for _, generated := range []protoreflect.FileDescriptor{
		coordinatorv1.File_buddyring_coordinator_v1_admin_proto,
		coordinatorv1.File_buddyring_coordinator_v1_agent_proto,
		coordinatorv1.File_buddyring_coordinator_v1_membership_proto,
		coordinatorv1.File_buddyring_coordinator_v1_model_proto,
		coordinatorv1.File_buddyring_coordinator_v1_peer_proto,
		routerv1.File_buddyring_router_v1_router_proto,
	} {
		file, err := files.FindFileByPath(generated.Path())
		if err != nil {
			t.Fatal(err)
		}
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			if file.SourceLocations().ByDescriptor(service).LeadingComments == "" {
				t.Errorf("%s has no comment", service.FullName())
			}
			if d, err := files.FindDescriptorByName(service.FullName()); err != nil || d != service {
				t.Errorf("%s by its name: %v, %v", service.FullName(), d, err)
			}
		}
		plain := protodesc.ToFileDescriptorProto(file)
		plain.SourceCodeInfo = nil
		if diff := cmp.Diff(protodesc.ToFileDescriptorProto(generated), plain, protocmp.Transform()); diff != "" {
			t.Errorf("%s is not what the code was generated from; run make generate:\n%s", file.Path(), diff)
		}
	}
}

// Files of others come from their generated code.
func TestFilesOfOthers(t *testing.T) {
	t.Parallel()
	duration := durationpb.File_google_protobuf_duration_proto
	if file, err := described.Resolver().FindFileByPath(duration.Path()); err != nil || file != duration {
		t.Errorf("%v, %v", file, err)
	}
	name := duration.Messages().Get(0).FullName()
	if d, err := described.Resolver().FindDescriptorByName(name); err != nil || d.FullName() != name {
		t.Errorf("%v, %v", d, err)
	}
}
