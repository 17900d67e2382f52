package history

import "fmt"

// obeyed finds rows that are not as operators want them, in one read: a member that
// is banned; one that gets work though it is to drain; one that drains though nobody
// wants it to, and it has not asked to leave.
func obeyed(all []Operation) (found []Finding) {
	leaving := map[point]Operation{} // by incarnation, which is the revision of a join
	scripted := map[string]bool{}
	for _, o := range all {
		at := point{o.Pool, o.Incarnation}
		if first, known := leaving[at]; o.Kind == Leave && (!known || o.Call < first.Call) {
			leaving[at] = o
		}
		scripted[o.Pool] = scripted[o.Pool] || o.Kind == Hello
	}
	for _, o := range all {
		if o.Kind != Read || !o.Known || !scripted[o.Pool] {
			continue
		}
		for _, r := range o.Result.Rows {
			intent := o.Result.Intents[r.ID]
			left, leaves := leaving[point{o.Pool, r.Incarnation}]
			drains := intent.Wish == wishDrain || leaves && left.Call <= o.Return
			if intent.Wish == wishBanned || intent.Wish == wishDrain && (r.Phase == active || r.Phase == "service_down") || r.Phase == "draining" && !drains {
				found = append(found, Finding{Obeyed, o.Pool + "/" + r.ID, fmt.Sprintf("it is %s at revision %d, and what is wanted is %q, %s",
					r.Phase, o.Result.Revision, intent.Wish, intent.Reason)})
			}
		}
	}
	return found
}
