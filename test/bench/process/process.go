//go:build linux

// Package process starts processes on chosen cores, ends them for sure, and reads what they use: processor time to the nanosecond
// and memory.
package process

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// A Set is a set of cores, as sched_setaffinity(2) takes it.
type Set [16]uint64

// Of is the set of these cores.
func Of(cores ...int) (s Set) {
	for _, core := range cores {
		s[core/64] |= 1 << (core % 64)
	}
	return s
}

// Cores are the cores that this process may use.
func Cores() ([]int, error) {
	s, err := affinity()
	if err != nil {
		return nil, err
	}
	var cores []int
	for core := range len(s) * 64 {
		if s[core/64]&(1<<(core%64)) != 0 {
			cores = append(cores, core)
		}
	}
	return cores, nil
}

// affinity is where the calling thread may run.
func affinity() (s Set, err error) {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(s), uintptr(unsafe.Pointer(&s))); errno != 0 {
		return s, fmt.Errorf("sched_getaffinity: %w", errno)
	}
	return s, nil
}

func setAffinity(s Set) error {
	if _, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(s), uintptr(unsafe.Pointer(&s))); errno != 0 {
		return fmt.Errorf("sched_setaffinity: %w", errno)
	}
	return nil
}

// A Process is one that Start started.
type Process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts cmd on the given cores, in a process group of its own. The kernel kills it when this process dies; End must be
// called all the same.
func Start(cmd *exec.Cmd, cores Set) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second // for children that hold its output open
	if err := startOn(cmd, cores); err != nil {
		return nil, err
	}
	p := &Process{cmd, make(chan struct{})}
	go p.wait()
	return p, nil
}

// startOn lends this thread the cores, because a child inherits those of the thread that forks it.
func startOn(cmd *exec.Cmd, cores Set) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before, err := affinity()
	if err != nil {
		return err
	}
	if err := setAffinity(cores); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, setAffinity(before)) }()
	return cmd.Start()
}

func (p *Process) wait() {
	p.cmd.Wait() //nolint:errcheck // killed is how it is meant to end
	close(p.exited)
}

// PID is its number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when it has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// End kills it with all its children, those in process groups of their own too, and waits for it.
func (p *Process) End() {
	tree, _ := Tree(p.PID()) // before its children are somebody else's
	select {
	case <-p.exited: // its number may be another's
		tree = nil
	default:
	}
	syscall.Kill(-p.PID(), syscall.SIGKILL) //nolint:errcheck // it may have ended by itself
	for _, pid := range tree {
		syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // as above
	}
	<-p.exited
}

// Tree is a process and all its descendants.
func Tree(pid int) ([]int, error) {
	children := make(map[int][]int)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, name := range stats {
		stat, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		if child, parent, ok := parseStat(stat); ok {
			children[parent] = append(children[parent], child)
		}
	}
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// parseStat reads the process and its parent from /proc/PID/stat (proc(5)), whose second field may hold anything in parentheses.
func parseStat(stat []byte) (pid, parent int, ok bool) {
	first, _, _ := bytes.Cut(stat, []byte(" "))
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, 0, false
	}
	pid, err1 := strconv.Atoi(string(first))
	parent, err2 := strconv.Atoi(string(fields[1]))
	return pid, parent, err1 == nil && err2 == nil
}

// CPU is the processor time that the processes have used up to now, with all their threads, in the kernel too. It is what utime
// and stime of /proc/PID/stat add up to, but finer than their 10 ms.
func CPU(pids ...int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		const scheduled = 2 // CPUCLOCK_SCHED of the kernel; see clock_getcpuclockid(3)
		var ts syscall.Timespec
		clock := int32(^pid)<<3 | scheduled
		if _, _, errno := syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, uintptr(clock), uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
			return 0, fmt.Errorf("the processor time of process %d: %w", pid, errno)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// Own is the processor time of this process.
func Own() (time.Duration, error) { return CPU(os.Getpid()) }

// Memory is the memory of the processes in bytes, where what they share is counted once (Pss of /proc/PID/smaps_rollup). The
// kernel's own, such as socket buffers, is not in it.
func Memory(pids ...int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		n, err := parsePss(text)
		if err != nil {
			return 0, fmt.Errorf("the memory of process %d: %w", pid, err)
		}
		sum += n
	}
	return sum, nil
}

func parsePss(rollup []byte) (int64, error) {
	for lines := bufio.NewScanner(bytes.NewReader(rollup)); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "Pss:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("no Pss in %q", rollup)
}

// Busy is the time that a core has worked since the machine started, for whomever, to 10 ms.
func Busy(core int) (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseBusy(text, core)
}

// parseBusy adds user, nice, system, irq, softirq and steal of a core in /proc/stat (proc(5)).
func parseBusy(stat []byte, core int) (time.Duration, error) {
	name := "cpu" + strconv.Itoa(core)
	for lines := bufio.NewScanner(bytes.NewReader(stat)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) < 9 || fields[0] != name {
			continue
		}
		var ticks int64
		for _, i := range []int{1, 2, 3, 6, 7, 8} {
			n, err := strconv.ParseInt(fields[i], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/stat: %w", err)
			}
			ticks += n
		}
		return time.Duration(ticks) * 10 * time.Millisecond, nil
	}
	return 0, fmt.Errorf("/proc/stat has no line %s", name)
}

// AllowFiles raises the soft limit of open files to the hard one, for this process and those it starts, and returns it.
func AllowFiles() (uint64, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("getrlimit: %w", err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("setrlimit: %w", err)
	}
	return limit.Max, nil
}
