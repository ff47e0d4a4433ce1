package node

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// A process is a container's first process; when it ends, the kernel ends the
// rest of its PID namespace.
type process struct {
	launch *launch
	cmd    *exec.Cmd
	ended  chan struct{}
	// What the container asked to be able to read; nil otherwise.
	input io.WriteCloser
}

// Self is this program with other arguments, even if its file was replaced.
func Self(args ...string) *exec.Cmd {
	return &exec.Cmd{Path: "/proc/self/exe", Args: append([]string{"lab"}, args...)}
}

// start launches the shim, with both outputs going to one log file, and an
// input if the container reads one.
func start(l *launch, log string, reads bool) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return nil, err
	}
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	// A pipe that the container's user owns, not the file: programs open
	// /dev/stdout, which would fail for want of permission or overwrite.
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	if err := in.Chown(l.UID, l.GID); err != nil {
		return nil, err
	}
	launchOut, launchIn, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer launchOut.Close()
	cmd := Self(ShimCommand)
	cmd.Stdout, cmd.Stderr = in, in
	cmd.ExtraFiles = []*os.File{launchOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
		Setsid:     true,
	}
	var input io.WriteCloser
	if reads {
		if input, err = cmd.StdinPipe(); err != nil {
			return nil, err
		}
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{launch: l, cmd: cmd, ended: make(chan struct{}), input: input}
	go func() {
		json.NewEncoder(launchIn).Encode(l)
		launchIn.Close()
	}()
	go func() {
		io.Copy(file, out)
		out.Close()
		file.Close()
	}()
	go func() {
		cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// exitCode is the shell's for a process that a signal ended.
func (p *process) exitCode() int32 {
	<-p.ended
	state, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && state.Signaled() {
		return 128 + int32(state.Signal())
	}
	return int32(p.cmd.ProcessState.ExitCode())
}

var errNotRunning = errors.New("container is not running")
