package docs_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
	routerv1 "github.com/buddyring/buddyring/proto/buddyring/router/v1"
)

// Recipes are shell blocks whose info string says so: all commands of a
// "sh grpcurl", a "sh curl" or a "sh dig" block exit with 0, those of a "sh grpcurl stream" block are ended
// by -max-time, and the one of a "sh grpcurl refused" block is refused by a safety
// rule.
const (
	recipe        = "sh grpcurl"
	streamRecipe  = "sh grpcurl stream"
	refusedRecipe = "sh grpcurl refused"
	curlRecipe    = "sh curl"
	digRecipe     = "sh dig"
)

// recipes are those of all documents, in order.
func recipes(t *testing.T) []block {
	t.Helper()
	var found []block
	for _, d := range documents(t) {
		for _, b := range d.blocks() {
			if slices.Contains([]string{recipe, streamRecipe, refusedRecipe, curlRecipe, digRecipe}, b.info) {
				found = append(found, b)
			}
		}
	}
	return found
}

// Operators and clients find every one of their RPCs as a recipe.
func TestEveryRPCHasARecipe(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, b := range recipes(t) {
		all.WriteString(b.text)
	}
	for _, service := range []protoreflect.ServiceDescriptor{
		coordinatorv1.File_buddyring_coordinator_v1_admin_proto.Services().ByName("AdminService"),
		routerv1.File_buddyring_router_v1_router_proto.Services().ByName("RouterService"),
	} {
		for i := range service.Methods().Len() {
			name := string(service.FullName()) + "/" + string(service.Methods().Get(i).Name())
			if !strings.Contains(all.String(), name+"\n") {
				t.Errorf("no recipe for %s", name)
			}
		}
	}
}
