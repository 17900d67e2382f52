package doors_test

import (
	"strings"
	"testing"
	"time"

	"github.com/buddyring/buddyring/internal/lab/doors"
)

func TestReport(t *testing.T) {
	r := doors.Report{
		Date: "2026-11-25", Machine: "2 cores", Servers: 8, Routers: 2, Callers: 4, DNS: true,
		Experiments: []doors.Experiment{
			{Name: "a restart", Seconds: 12.34, Doors: []doors.Outcome{
				{Door: doors.GoGRPC, Asked: 10}, {Door: doors.Pick, Asked: 20, Failed: 1, Last: time.Second, Errors: []string{"refused"}},
			}},
			{Name: "a crash", Seconds: 5, Crash: true, Suspect: 197 * time.Millisecond, Doors: []doors.Outcome{
				{Door: doors.GoGRPC, Asked: 30, Failed: 2, Last: 150 * time.Millisecond}, {Door: doors.Pick, Asked: 40},
			}},
		},
	}
	var got strings.Builder
	if err := r.Write(&got); err != nil {
		t.Fatal(err)
	}
	const want = `Requests that failed. Pool of 8, 2 routers with DNS, 4 callers by each door. 2026-11-25, 2 cores.

| experiment                            | Go library, gRPC                      | Pick    |
| ---                                   | ---                                   | ---     |
| a restart (12.3 s)                    | 0 of 10                               | 1 of 20 |
| a crash (5.0 s), suspect after 197 ms | 2 of 30, the last chosen after 150 ms | 0 of 40 |

a restart, Pick: refused
`
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}
