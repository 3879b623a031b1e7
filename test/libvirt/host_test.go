//go:build linux

package libvirt

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bellhop-vm/bellhop/test/vm"
)

// nobody is whom libvirt runs as if we are root: as root it would manage the
// machine's own guests, as anybody else only those of its user.
const nobody = 65534

// patience bounds every wait. The guests are emulated, and the machine may be
// busy with other tests.
const patience = 2 * time.Minute

// A host is a libvirt daemon of our own, which knows no guests but ours.
type host struct {
	dir string // holds all that it reads and writes
}

// newHost starts a daemon, or skips the test where there is none.
func newHost(t *testing.T) *host {
	t.Helper()
	vm.Need(t)
	daemon := find(t, "libvirtd")
	find(t, "virsh")

	dir, err := os.MkdirTemp("", "bellhop-libvirt-") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{dir: dir}
	// QEMU writes its log by itself, rather than through one more daemon.
	h.write(t, "config/libvirt/qemu.conf", []byte("stdio_handler = \"file\"\nsecurity_driver = \"none\"\n"))
	h.write(t, "config/libvirt/libvirtd.conf", []byte("unix_sock_dir = \""+filepath.Dir(h.socket())+"\"\n"))
	for _, sub := range []string{"run/libvirt", "cache", "data"} {
		h.mkdir(t, sub)
	}

	var stderr bytes.Buffer
	// If we are killed, its guests end by themselves, and it after them.
	cmd := h.command(daemon, "--timeout", "60", "--config", filepath.Join(dir, "config/libvirt/libvirtd.conf"))
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("libvirtd:\n%s", stderr.Bytes())
		}
	})
	eventually(t, "libvirtd to listen", func() bool {
		_, err := os.Stat(h.socket())
		return err == nil
	})
	return h
}

// find returns the path of a program of libvirt's.
func find(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			if os.Getenv("BELLHOP_VM") == "required" {
				t.Fatal(err)
			}
			t.Skipf("no libvirt here, please run make setup: %v", err)
		}
	}
	return path
}

func (h *host) socket() string { return filepath.Join(h.dir, "run/libvirt/libvirt-sock") }

// uri is the daemon's name among libvirt's clients.
func (h *host) uri() string { return "qemu+unix:///session?socket=" + h.socket() }

// mkdir makes a directory that libvirt may write to.
func (h *host) mkdir(t *testing.T, name string) {
	t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	for ; len(path) >= len(h.dir); path = filepath.Dir(path) {
		h.give(t, path)
	}
}

// write writes a file that libvirt may read and write, and returns its path.
func (h *host) write(t *testing.T, name string, data []byte) string {
	t.Helper()
	h.mkdir(t, filepath.Dir(name))
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	h.give(t, path)
	return path
}

func (h *host) give(t *testing.T, path string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

// command prepares a program that is to find our daemon and nothing of the
// user's.
func (h *host) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = h.dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "LC_ALL=C", "HOME=" + h.dir,
		"XDG_CONFIG_HOME=" + h.dir + "/config", "XDG_CACHE_HOME=" + h.dir + "/cache",
		"XDG_DATA_HOME=" + h.dir + "/data", "XDG_RUNTIME_DIR=" + h.dir + "/run",
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	return cmd
}

// virsh runs a command of virsh and returns what it says, with the complaint
// if it fails.
func (h *host) virsh(args ...string) (string, error) {
	cmd := h.command("virsh", append([]string{"-c", h.uri()}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return "", err
	}
	tooLong := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer tooLong.Stop()
	err := cmd.Wait()
	return strings.TrimSpace(out.String()), err
}

// must runs a command of virsh that has to succeed.
func (h *host) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := h.virsh(args...)
	if err != nil {
		t.Fatalf("virsh %q: %v: %s", args, err, out)
	}
	return out
}

// eventually waits until something has come true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
