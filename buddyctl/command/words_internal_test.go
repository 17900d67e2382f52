package command

import (
	"bytes"
	"strings"
	"testing"
	"time"

	coordinatorv1 "github.com/buddyring/buddyring/proto/buddyring/coordinator/v1"
)

// What is wrong with a certificate is not taken for the want of one: TLS tells of
// it within the same error as a peer without TLS.
func TestHints(t *testing.T) {
	t.Parallel()
	to := target{name: "coordinator", flag: "--admin"}
	for text, want := range map[string]string{
		"error reading server preface: EOF":                                                      "does it want TLS?",
		"error reading server preface: remote error: tls: expired certificate":                   "--tls-cert has ended",
		"error reading server preface: remote error: tls: unknown certificate authority":         "was --tls-cert issued by its CA?",
		"error reading server preface: remote error: tls: certificate required":                  "give --tls-cert and --tls-key",
		"verify server: x509: certificate signed by unknown authority":                           "is --tls-ca the CA",
		"tls: first record does not look like a TLS handshake":                                   "it speaks plaintext",
		"rpc error: code = Unimplemented desc = unknown service buddyring.coordinator.v1.Admin…": "is this its port for admin?",
	} {
		if got := hint(text, to); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// A standby does not pretend that nobody is connected and nothing is wrong.
func TestStatusOfAStandby(t *testing.T) {
	t.Parallel()
	a := &app{World: World{Now: time.Now}}
	var out bytes.Buffer
	err := a.writeStatus(&out, &coordinatorv1.GetStatusResponse{State: coordinatorv1.LeaderState_LEADER_STATE_STANDBY})
	if err != nil {
		t.Fatal(err)
	}
	if text := out.String(); strings.Contains(text, "0 agents") || strings.Count(text, "only the leader knows") != 2 {
		t.Errorf("got %s", text)
	}
}
