//go:build !linux

package systemd

// Notify does nothing.
func (s *Service) Notify(string) error { return nil }

// Listener returns -1: there is no socket.
func (s *Service) Listener() (fd int, family Family, err error) { return -1, "", nil }

func (s *Service) closeOnExec() error { return nil }
