package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/buddyring/buddyring/internal/version"
)

// NewRegistry returns a registry with the metrics of the Go runtime, of the
// process, and buddyring_build_info. component is coordinator, agent or router.
func NewRegistry(component string) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "buddyring_build_info",
		Help: "Always 1; the labels say what runs.",
	}, []string{"component", "version", "goversion"})
	info.WithLabelValues(component, version.String(), version.Go()).Set(1)
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		info,
	)
	return reg
}

// Seconds returns the options of a histogram of durations in seconds: native
// where the scraper understands that, and with these buckets where not.
func Seconds(name, help string, buckets ...float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name:                            name,
		Help:                            help,
		Buckets:                         buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}
