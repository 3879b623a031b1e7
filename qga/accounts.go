package qga

// SetUserPasswordArgs are the arguments of guest-set-user-password.
type SetUserPasswordArgs struct {
	Username string `json:"username"`
	// Password is the new password, or its crypt(3) hash if Crypted.
	Password []byte `json:"password"`
	// Crypted must be false on Windows. Whether the guest can use the hash is
	// not checked.
	Crypted bool `json:"crypted"`
}

// SetUserPassword changes the password of an existing user.
var SetUserPassword = Command[SetUserPasswordArgs, Empty]{Info{
	Name: "guest-set-user-password", Since: "2.3", Systems: AllSystems,
}}

// SSHGetAuthorizedKeysArgs are the arguments of
// guest-ssh-get-authorized-keys.
type SSHGetAuthorizedKeysArgs struct {
	Username string `json:"username"`
}

// AuthorizedKeys is the result of guest-ssh-get-authorized-keys.
type AuthorizedKeys struct {
	// Keys are lines of authorized_keys as in sshd(8), with options and comment
	// if they have any, in no particular order.
	Keys []string `json:"keys"`
}

// SSHGetAuthorizedKeys returns the keys that may log in as a user. Windows has
// it and its two companions since 9.1.
var SSHGetAuthorizedKeys = Command[SSHGetAuthorizedKeysArgs, AuthorizedKeys]{Info{
	Name: "guest-ssh-get-authorized-keys", Since: "5.2", Systems: AllSystems,
}}

// SSHAddAuthorizedKeysArgs are the arguments of
// guest-ssh-add-authorized-keys.
type SSHAddAuthorizedKeysArgs struct {
	Username string `json:"username"`
	// Keys are as in AuthorizedKeys.
	Keys []string `json:"keys"`
	// Reset drops all other keys of the user. Absent means false.
	Reset *bool `json:"reset,omitempty"`
}

// SSHAddAuthorizedKeys lets keys log in as a user. One that is there already is
// not added again.
var SSHAddAuthorizedKeys = Command[SSHAddAuthorizedKeysArgs, Empty]{Info{
	Name: "guest-ssh-add-authorized-keys", Since: "5.2", Systems: AllSystems,
}}

// SSHRemoveAuthorizedKeysArgs are the arguments of
// guest-ssh-remove-authorized-keys.
type SSHRemoveAuthorizedKeysArgs struct {
	Username string `json:"username"`
	// Keys must equal the lines to remove, comments included.
	Keys []string `json:"keys"`
}

// SSHRemoveAuthorizedKeys undoes SSHAddAuthorizedKeys. A key that is not there
// is no error.
var SSHRemoveAuthorizedKeys = Command[SSHRemoveAuthorizedKeysArgs, Empty]{Info{
	Name: "guest-ssh-remove-authorized-keys", Since: "5.2", Systems: AllSystems,
}}
