package wallclock

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Known says whether clocks can be set on this system.
const Known = true

// Clock is the wall clock of a process. One goroutine at a time may use it.
type Clock struct {
	pid int
	// ahead is where in the process it says by how many seconds its clock is
	// ahead: 8 bytes, little-endian.
	ahead int64
}

const (
	// jumpSize is the size of "jmp rel32".
	jumpSize = 5
	// stopTime bounds how long a process may take to stop.
	stopTime = 5 * time.Second
)

// call is what a function of the vDSO is replaced by. It asks the kernel, and adds
// what the 8 bytes in front of all code hold. It changes no register that a function
// may not change in the System V ABI.
type call struct {
	symbol string
	code   []byte
	// ahead is the place in code of the 32-bit distance to those 8 bytes, the last
	// part of its instruction.
	ahead int
}

// calls are the functions by which programs ask for the time. clock_getres and the
// others tell no time.
func calls() []call {
	return []call{
		{"__vdso_clock_gettime", []byte{
			0xb8, 0xe4, 0x00, 0x00, 0x00, // mov  eax, 228 (clock_gettime)
			0x0f, 0x05, //                   syscall
			0x85, 0xc0, //                   test eax, eax
			0x75, 0x13, //                   jne  ret
			0x85, 0xff, //                   test edi, edi (CLOCK_REALTIME)
			0x74, 0x05, //                   je   add
			0x83, 0xff, 0x05, //             cmp  edi, 5 (CLOCK_REALTIME_COARSE)
			0x75, 0x0a, //                   jne  ret
			0x48, 0x8b, 0x0d, 0, 0, 0, 0, // add: mov rcx, [ahead]
			0x48, 0x01, 0x0e, //             add  [rsi], rcx
			0xc3, //                         ret: ret
		}, 23},
		{"__vdso_gettimeofday", []byte{
			0xb8, 0x60, 0x00, 0x00, 0x00, // mov  eax, 96 (gettimeofday)
			0x0f, 0x05, //                   syscall
			0x85, 0xc0, //                   test eax, eax
			0x75, 0x0f, //                   jne  ret
			0x48, 0x85, 0xff, //             test rdi, rdi (who asks for the zone only)
			0x74, 0x0a, //                   je   ret
			0x48, 0x8b, 0x0d, 0, 0, 0, 0, // mov  rcx, [ahead]
			0x48, 0x01, 0x0f, //             add  [rdi], rcx
			0xc3, //                         ret: ret
		}, 19},
		{"__vdso_time", []byte{
			0x48, 0x89, 0xfa, //             mov  rdx, rdi
			0x31, 0xff, //                   xor  edi, edi
			0xb8, 0xc9, 0x00, 0x00, 0x00, // mov  eax, 201 (time)
			0x0f, 0x05, //                   syscall
			0x48, 0x03, 0x05, 0, 0, 0, 0, // add  rax, [ahead]
			0x48, 0x85, 0xd2, //             test rdx, rdx
			0x74, 0x03, //                   je   ret
			0x48, 0x89, 0x02, //             mov  [rdx], rax
			0xc3, //                         ret: ret
		}, 15},
	}
}

// Of takes over the wall clock of a process, which goes on being right. The process
// stands still for a moment. It takes the right to trace the process (ptrace(2)).
func Of(pid int) (*Clock, error) {
	start, image, err := vdso(pid)
	for begin := time.Now(); errors.Is(err, errNoVDSO) && time.Since(begin) < loadTime; {
		time.Sleep(time.Millisecond)
		start, image, err = vdso(pid)
	}
	if err != nil {
		return nil, fmt.Errorf("take over the clock of process %d: %w", pid, err)
	}
	p, err := plan(start, image)
	if err != nil {
		return nil, fmt.Errorf("take over the clock of process %d: %w", pid, err)
	}
	c := &Clock{pid: pid, ahead: p.ahead}
	if err := c.write(p.patches, p.busy); err != nil {
		return nil, fmt.Errorf("take over the clock of process %d: %w", pid, err)
	}
	return c, nil
}

// Set sets the clock: from now on it is ahead of the host's by so many whole seconds;
// below 0, behind it. The process stands still for a moment.
func (c *Clock) Set(ahead time.Duration) error {
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(ahead/time.Second))
	if err := c.write([]patch{{c.ahead, seconds}}, nil); err != nil {
		return fmt.Errorf("set the clock of process %d: %w", c.pid, err)
	}
	return nil
}

// patch is what is written into a process, and where.
type patch struct {
	at   int64
	data []byte
}

// patches is what takes a process's clock over.
type patches struct {
	patches []patch
	ahead   int64
	// busy tells whether a thread that stands at this place is in the midst of
	// what is written over.
	busy func(pc int64) bool
}

// plan places the code behind the end of the vDSO, which is shorter than its pages,
// and a jump to it at the beginning of each function.
func plan(start int64, image []byte) (p patches, err error) {
	file, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return p, fmt.Errorf("read vDSO: %w", err)
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return p, fmt.Errorf("read vDSO: %w", err)
	}
	end := int64(0)
	for _, prog := range file.Progs {
		if prog.Type == elf.PT_LOAD {
			end = max(end, int64(prog.Vaddr+prog.Memsz))
		}
	}
	p.ahead = (end + 15) / 16 * 16
	next := p.ahead + 8
	code := make([]byte, 8)
	var entries []int64
	for _, c := range calls() {
		entry, err := address(symbols, c.symbol)
		if err != nil {
			return p, err
		}
		binary.LittleEndian.PutUint32(c.code[c.ahead:], uint32(p.ahead-(next+int64(c.ahead)+4)))
		jump := binary.LittleEndian.AppendUint32([]byte{0xe9}, uint32(next-(entry+jumpSize)))
		p.patches = append(p.patches, patch{start + entry, jump})
		entries = append(entries, start+entry)
		code, next = append(code, c.code...), next+int64(len(c.code))
	}
	if next > int64(len(image)) {
		return p, fmt.Errorf("the vDSO has no room: it has %d bytes of %d", end, len(image))
	}
	// The code is there before anything jumps to it.
	p.patches = append([]patch{{start + p.ahead, code}}, p.patches...)
	p.ahead += start
	p.busy = func(pc int64) bool {
		for _, entry := range entries {
			if entry < pc && pc < entry+jumpSize {
				return true
			}
		}
		return false
	}
	return p, nil
}

func address(symbols []elf.Symbol, name string) (int64, error) {
	for _, s := range symbols {
		if s.Name == name {
			return int64(s.Value), nil
		}
	}
	return 0, fmt.Errorf("the vDSO has no %s", name)
}

var errNoVDSO = errors.New("it has no vDSO")

// loadTime is how long the kernel may take to load a program that was just started:
// until then it has no vDSO.
const loadTime = time.Second

// vdso reads the vDSO of a process, and says where it is.
func vdso(pid int) (start int64, image []byte, err error) {
	maps, err := os.ReadFile(proc(pid, "maps"))
	if err != nil {
		return 0, nil, err
	}
	for line := range strings.Lines(string(maps)) {
		if !strings.HasSuffix(line, "[vdso]\n") {
			continue
		}
		var end int64
		if _, err := fmt.Sscanf(line, "%x-%x", &start, &end); err != nil {
			return 0, nil, fmt.Errorf("read %q: %w", line, err)
		}
		memory, err := os.Open(proc(pid, "mem"))
		if err != nil {
			return 0, nil, err
		}
		defer func() { _ = memory.Close() }() // it was only read
		image = make([]byte, end-start)
		_, err = memory.ReadAt(image, start)
		return start, image, err
	}
	return 0, nil, errNoVDSO
}

// write writes into a process while it stands still, and no thread of it is busy
// there.
func (c *Clock) write(patches []patch, busy func(pc int64) bool) (err error) {
	memory, err := os.OpenFile(proc(c.pid, "mem"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, memory.Close()) }()
	for end := time.Now().Add(stopTime); ; time.Sleep(time.Millisecond) {
		err := c.stopped(busy, func() error {
			for _, p := range patches {
				if _, err := memory.WriteAt(p.data, p.at); err != nil {
					return err
				}
			}
			return nil
		})
		if !errors.Is(err, errBusy) || time.Now().After(end) {
			return err
		}
	}
}

// errBusy says that a thread stands where something is to be written.
var errBusy = errors.New("a thread of it asks for the time")

// stopped does something while all threads of the process stand still.
func (c *Clock) stopped(busy func(pc int64) bool, do func() error) (err error) {
	if err := syscall.Kill(c.pid, syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, syscall.Kill(c.pid, syscall.SIGCONT)) }()
	threads, err := c.threads()
	if err != nil {
		return err
	}
	for _, pc := range threads {
		if busy != nil && busy(pc) {
			return errBusy
		}
	}
	return do()
}

// threads waits until all threads of the process stand still, and says where.
func (c *Clock) threads() ([]int64, error) {
	for end := time.Now().Add(stopTime); ; time.Sleep(100 * time.Microsecond) {
		pcs, all, err := c.still()
		if err != nil || all {
			return pcs, err
		}
		if time.Now().After(end) {
			return nil, errors.New("it does not stop")
		}
	}
}

// still says where the threads of the process stand, and whether all of them do.
func (c *Clock) still() (pcs []int64, all bool, err error) {
	tasks, err := filepath.Glob(proc(c.pid, "task/*"))
	if err != nil {
		return nil, false, err
	}
	for _, task := range tasks {
		stat, err := os.ReadFile(filepath.Join(task, "stat"))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return nil, false, nil // it ends, as others may
		}
		if err != nil {
			return nil, false, err
		}
		// The state follows the name, which may have parentheses of its own.
		if _, state, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " "); !ok || !strings.HasPrefix(state, "T") {
			return nil, false, nil
		}
		where, err := os.ReadFile(filepath.Join(task, "syscall"))
		if err != nil {
			return nil, false, err
		}
		// "running", "-1 SP PC", or "NR ARGS... SP PC".
		words := strings.Fields(string(where))
		if len(words) < 3 {
			return nil, false, nil
		}
		pc, err := strconv.ParseInt(strings.TrimPrefix(words[len(words)-1], "0x"), 16, 64)
		if err != nil {
			return nil, false, err
		}
		pcs = append(pcs, pc)
	}
	return pcs, len(pcs) > 0, nil
}

func proc(pid int, name string) string { return filepath.Join("/proc", strconv.Itoa(pid), name) }
