package sim

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/buddyring/buddyring/internal/member"
)

// ParseFault reads a fault as Text writes it: its kind, and then KEY=VALUE for
// whom it strikes (count, share, adjacent, watchers,
// either, watched, zone, rack, servers), when
// (at, within, for, times, every, same) and how (loss, lie, clock, burst, both).
func ParseFault(field, text string) (Fault, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return Fault{}, member.Invalid(field, "is empty")
	}
	kind := slices.Index(FaultNames(), words[0])
	if kind <= 0 {
		return Fault{}, member.Invalid(field, "%q is none of %v", words[0], FaultNames()[1:])
	}
	f := Fault{Kind: FaultKind(kind)}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		if err := f.set(key, value); err != nil {
			return Fault{}, member.Invalid(field, "%s: %v", word, err)
		}
	}
	if w := &f.Who; w.Count == 0 && w.Share == 0 && w.Watchers == 0 && w.Zone == "" && len(w.Servers) == 0 && !w.Watched {
		return Fault{}, member.Invalid(field, "%q strikes nobody; say whom, as in count=3", text)
	}
	return f, f.check(MaxServers)
}

func (f *Fault) set(key, value string) (err error) {
	switch key {
	case "count":
		f.Who.Count, err = strconv.Atoi(value)
	case "adjacent":
		f.Who.Adjacent = true
		f.Who.Count, err = strconv.Atoi(value)
	case "watchers":
		f.Who.Watchers, err = strconv.Atoi(value)
	case "either":
		f.Who.Either = true
	case "watched":
		f.Who.Watched = true
	case "share":
		f.Who.Share, err = ParseShare("share", value)
	case "zone":
		f.Who.Zone = value
	case "rack":
		f.Who.Rack = value
	case "servers":
		for n := range strings.SplitSeq(value, ",") {
			var i int
			if i, err = strconv.Atoi(n); err != nil {
				return err
			}
			f.Who.Servers = append(f.Who.Servers, i)
		}
	case "times":
		f.Times, err = strconv.Atoi(value)
	case "same":
		f.Same = true
	case "both":
		f.Both = true
	case "loss":
		f.Loss, err = ParseShare("loss", value)
	case "lie":
		f.Lie, err = ParseLie("lie", value)
	default:
		times := map[string]*time.Duration{"at": &f.At, "within": &f.Within, "for": &f.For, "every": &f.Every, "clock": &f.Clock, "burst": &f.Burst}
		d := times[key]
		if d == nil {
			return fmt.Errorf("%q is unknown", key)
		}
		*d, err = time.ParseDuration(value)
	}
	return err
}

// Text writes a fault so that ParseFault reads it.
func (f *Fault) Text() string {
	words := []string{f.Kind.String()}
	add := func(key, value string, unless bool) {
		if !unless {
			words = append(words, key+"="+value)
		}
	}
	count := "count"
	if f.Who.Adjacent {
		count = "adjacent"
	}
	add(count, strconv.Itoa(f.Who.Count), f.Who.Count == 0)
	add("watchers", strconv.Itoa(f.Who.Watchers), f.Who.Watchers == 0)
	flag := func(word string, is bool) {
		if is {
			words = append(words, word)
		}
	}
	flag("either", f.Who.Either)
	flag("watched", f.Who.Watched)
	add("share", share(f.Who.Share), f.Who.Share == 0)
	add("zone", f.Who.Zone, f.Who.Zone == "")
	add("rack", f.Who.Rack, f.Who.Rack == "")
	add("servers", strings.Trim(strings.ReplaceAll(fmt.Sprint(f.Who.Servers), " ", ","), "[]"), len(f.Who.Servers) == 0)
	add("at", f.At.String(), f.At == 0)
	add("within", f.Within.String(), f.Within == 0)
	add("for", f.For.String(), f.For == 0)
	add("times", strconv.Itoa(f.Times), f.Times == 0)
	add("every", f.Every.String(), f.Every == 0)
	flag("same", f.Same)
	add("loss", share(f.Loss), f.Loss == 0)
	if f.Lie != Honest {
		add("lie", Lies()[f.Lie-1], false)
	}
	add("clock", f.Clock.String(), f.Clock == 0)
	add("burst", f.Burst.String(), f.Burst == 0)
	flag("both", f.Both)
	return strings.Join(words, " ")
}

// ParseShare reads a share such as 1% or 0.01.
func ParseShare(field, s string) (float64, error) {
	number, percent := strings.CutSuffix(s, "%")
	v, err := strconv.ParseFloat(number, 64)
	if percent {
		v /= 100
	}
	if err != nil || !(v >= 0 && v <= 1) {
		return 0, member.Invalid(field, "%q is not a share such as 1%% or 0.01", s)
	}
	return v, nil
}

func share(v float64) string { return strconv.FormatFloat(v*100, 'g', 6, 64) + "%" }

// Set changes a setting of the pool by its name, as in brake_percent=100.
func Set(settings *member.Settings, assignment string) error {
	key, value, ok := strings.Cut(assignment, "=")
	if !ok {
		return member.Invalid("set", "%q is not SETTING=VALUE", assignment)
	}
	names := []string{}
	for name, field := range settingFields(settings) {
		names = append(names, name)
		if name == key {
			return setField(field, key, value)
		}
	}
	slices.Sort(names)
	return member.Invalid("set", "%q is none of %v", key, names)
}

func setField(field any, key, value string) (err error) {
	switch f := field.(type) {
	case *time.Duration:
		*f, err = time.ParseDuration(value)
	case *int:
		*f, err = strconv.Atoi(value)
	case *member.Mode:
		*f, err = member.ParseMode(value)
	}
	if err != nil {
		return member.Invalid("set", "%s: %v", key, err)
	}
	return nil
}

// settingFields are pointers to the settings by their names.
func settingFields(settings *member.Settings) map[string]any {
	fields := map[string]any{}
	v := reflect.ValueOf(settings).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = v.Field(i).Addr().Interface()
	}
	return fields
}

// Command is the command line of buddyctl that makes the same run again.
func (o Options) Command() string {
	d := DefaultOptions(o.Servers)
	words := []string{"buddyctl", "simulate", "--servers", strconv.Itoa(o.Servers)}
	add := func(flag, value, usual string) {
		if value != usual {
			words = append(words, "--"+flag, value)
		}
	}
	add("zones", strconv.Itoa(o.Zones), strconv.Itoa(d.Zones))
	add("racks", strconv.Itoa(o.Racks), strconv.Itoa(d.Racks))
	add("routers", strconv.Itoa(o.Routers), strconv.Itoa(d.Routers))
	add("loss", share(o.Network.Loss), share(d.Network.Loss))
	add("loss-model", o.Network.Model.String(), d.Network.Model.String())
	add("burst", o.Network.Burst.String(), d.Network.Burst.String())
	add("burst-loss", share(o.Network.BurstLoss), share(d.Network.BurstLoss))
	add("delay", o.Network.Delay.String(), d.Network.Delay.String())
	add("jitter", o.Network.Jitter.String(), d.Network.Jitter.String())
	add("commit-delay", o.Store.Delay.String(), d.Store.Delay.String())
	add("commit-fail", share(o.Store.Fail), share(d.Store.Fail))
	add("commit-hang", o.Store.HangFor.String(), d.Store.HangFor.String())
	add("chaos", share(o.Chaos), share(d.Chaos))
	if o.Bootstrap {
		words = append(words, "--bootstrap")
	}
	if o.CheckRing {
		words = append(words, "--check-ring")
	}
	add("settle", o.Settle.String(), d.Settle.String())
	add("duration", o.Duration.String(), d.Duration.String())
	usual := settingFields(&d.Settings)
	fields := settingFields(&o.Settings)
	for _, name := range slices.Sorted(func(yield func(string) bool) {
		for name := range fields {
			if !yield(name) {
				return
			}
		}
	}) {
		value := reflect.ValueOf(fields[name]).Elem().Interface()
		if value != reflect.ValueOf(usual[name]).Elem().Interface() {
			words = append(words, "--set", fmt.Sprintf("%s=%v", name, value))
		}
	}
	for i := range o.Faults {
		words = append(words, "--fault", `"`+o.Faults[i].Text()+`"`)
	}
	words = append(words, "--seed", strconv.FormatUint(o.Seed, 10))
	return strings.Join(words, " ")
}
