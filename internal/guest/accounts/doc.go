// Package accounts changes how people get into the guest: their passwords, and
// the keys that let them in over SSH.
//
// A user's files belong to the user, and he may put anything in their place
// while the agent, which is root, looks elsewhere. So whatever is done in a home
// directory is done with the user's own rights: a link then leads nowhere that
// he could not go himself.
package accounts
