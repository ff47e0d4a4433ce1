package node

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ShimCommand is the subcommand that becomes a container's first process.
const ShimCommand = "shim"

// startError is the exit code for a container that could not be started.
const startError = 128

// A launch is everything a container's process needs; the agent sends it to the
// shim, which is already first in its PID, mount, IPC and UTS namespaces.
type launch struct {
	Netns        string // path of the pod's network namespace, empty for the node's
	Hostname     string
	Root         string // an empty directory
	ReadOnlyRoot bool
	Mounts       []mount // in the order of their depth
	Args, Env    []string
	Dir          string
	UID, GID     int
	Groups       []int
	Capabilities []uintptr // kept in the bounding set
	NoNewPrivs   bool
}

type mount struct {
	Source, Target string
	ReadOnly       bool
}

// Shim turns itself into the container's process.
func Shim([]string) error {
	runtime.LockOSThread() // a network namespace is a property of the thread
	var l launch
	pipe := os.NewFile(3, "launch")
	if err := json.NewDecoder(pipe).Decode(&l); err != nil {
		return err
	}
	pipe.Close()
	if err := l.become(); err != nil {
		fmt.Fprintln(os.Stderr, "lab: cannot start the container:", err)
		os.Exit(startError)
	}
	return nil
}

func (l *launch) become() error {
	if l.Netns != "" {
		if err := joinNetwork(l.Netns); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(l.Hostname)); err != nil {
		return err
	}
	if err := l.buildRoot(); err != nil {
		return err
	}
	if err := pivot(l.Root); err != nil {
		return err
	}
	if l.ReadOnlyRoot {
		if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir(l.Dir); err != nil {
		return err
	}
	if err := l.dropPrivileges(); err != nil {
		return err
	}
	os.Clearenv()
	for _, pair := range l.Env {
		name, value, _ := strings.Cut(pair, "=")
		os.Setenv(name, value)
	}
	program, err := exec.LookPath(l.Args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, l.Args, l.Env)
}

func joinNetwork(path string) error {
	namespace, err := os.Open(path)
	if err != nil {
		return err
	}
	defer namespace.Close()
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return err
	}
	// As container engines do: port 80 needs no privilege inside a pod.
	return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0)
}

// buildRoot makes a root of its own for the container: an empty tmpfs, this
// machine's programs and libraries read-only, fresh /proc, /sys and
// /dev, then the image's files and the pod's volumes.
func (l *launch) buildRoot() error {
	root := func(path string) string { return filepath.Join(l.Root, path) }
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", l.Root, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "etc", "run", "root", "home", "var/log", "var/lib", "var/tmp", l.Dir} {
		if err := os.MkdirAll(root(dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"tmp", "var/tmp"} {
		if err := os.Chmod(root(dir), 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	for link, target := range map[string]string{
		"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run",
	} {
		if err := os.Symlink(target, root(link)); err != nil {
			return err
		}
	}
	var base []mount
	for _, dir := range []string{"bin", "sbin", "lib", "lib64", "share"} { // local is the image's
		base = append(base, mount{"/usr/" + dir, "/usr/" + dir, true})
	}
	for _, file := range []string{"passwd", "group", "ssl", "ld.so.cache", "nsswitch.conf"} {
		base = append(base, mount{"/etc/" + file, "/etc/" + file, true})
	}
	for _, device := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		base = append(base, mount{"/dev/" + device, "/dev/" + device, false})
	}
	for _, m := range append(base, l.Mounts...) {
		if err := bind(m.Source, root(m.Target), m.ReadOnly); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	for link, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, root("dev/"+link)); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", root("proc"), "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := os.MkdirAll(root("dev/shm"), 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", root("dev/shm"), "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return err
	}
	return unix.Mount("sysfs", root("sys"), "sysfs", unix.MS_RDONLY, "")
}

// bind mounts a file or a directory, making the place for it.
func bind(source, target string, readOnly bool) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if err = os.MkdirAll(filepath.Dir(target), 0o755); err == nil {
		var file *os.File
		if file, err = os.OpenFile(target, os.O_CREATE, 0o644); err == nil {
			err = file.Close()
		}
	}
	if err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil || !readOnly {
		return err
	}
	return unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// pivot makes root the root and forgets the machine's file systems.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil { // the old root lies on top
		return err
	}
	return os.Chdir("/")
}

// dropPrivileges bounds what root may do and becomes the container's user; a
// change to another user clears the capabilities themselves.
func (l *launch) dropPrivileges() error {
	keep := map[uintptr]bool{}
	for _, c := range l.Capabilities {
		keep[c] = true
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if !keep[c] {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && err != unix.EINVAL {
				return err
			}
		}
	}
	if l.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	if err := syscall.Setgroups(l.Groups); err != nil {
		return err
	}
	if err := syscall.Setgid(l.GID); err != nil {
		return err
	}
	return syscall.Setuid(l.UID)
}
