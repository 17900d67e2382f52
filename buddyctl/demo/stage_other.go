//go:build !linux

package demo

import (
	"context"
	"fmt"
)

func enterNamespaces(context.Context, []string, func(context.Context) int) (int, error) {
	return 0, fmt.Errorf("%w: network namespaces are a feature of Linux", errNoHosts)
}

func newNamespaces([]string) (stage, error) { return nil, errNoHosts }
