// Package driver is what the drivers in Go share: the loop of requests (ops/compat/README.md has the protocol), the pace
// of a producer and the file of a member.
package driver

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"
)

// Request has the fields of every request; which of them count depends on Do.
type Request struct {
	Do, Topic, Group, Protocol, File, Codec, Tag, Key, Value string
	Partitions                                               int32
	Replicas                                                 int16
	Count, Rate                                              int
	Limit                                                    *int
	Idempotent                                               *bool
	Timestamp                                                int64
}

// Answer is what is printed for a request.
type Answer map[string]any

// NotAvailable is the error of a feature that the client does not have.
type NotAvailable string

func (reason NotAvailable) Error() string { return string(reason) }

// Handler answers one kind of request.
type Handler func(Request) (Answer, error)

// Serve answers requests until standard input ends.
func Serve(handlers map[string]Handler) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var request Request
		answer, err := Answer{}, json.Unmarshal(lines.Bytes(), &request)
		if err == nil {
			handler, found := handlers[request.Do]
			if found {
				answer, err = handler(request)
			} else {
				err = NotAvailable("none")
			}
		}
		if reason, is := err.(NotAvailable); is {
			answer = Answer{"na": reason}
		} else if err != nil {
			answer = Answer{"error": err.Error()}
		} else if answer == nil {
			answer = Answer{"ok": true}
		}
		line, _ := json.Marshal(answer)
		fmt.Println(string(line))
	}
}

// Record is number n of a producer's records.
func Record(tag string, n int) (key, value []byte) {
	return fmt.Appendf(nil, "k%d", n%1000), fmt.Appendf(nil, "%s-%d", tag, n)
}

// Pace holds a producer to a rate and sees how long the slowest acknowledgement took.
type Pace struct {
	mutex           sync.Mutex
	rate            int
	began           time.Time
	longest         time.Duration
	failed, Settled int
	why             string
}

// NewPace is a pace of rate records per second; 0: as fast as it goes.
func NewPace(rate int) *Pace { return &Pace{rate: rate, began: time.Now()} }

// Due waits until record number n may go.
func (p *Pace) Due(n int) {
	if p.rate > 0 {
		time.Sleep(time.Until(p.began.Add(time.Duration(n) * time.Second / time.Duration(p.rate))))
	}
}

// Acknowledged counts one record, given to the client at sent, as done, well or not.
func (p *Pace) Acknowledged(sent time.Time, err error) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	p.longest = max(p.longest, time.Since(sent))
	p.Settled++
	if err != nil {
		p.failed++
		p.why = err.Error()
	}
}

// Answer is what a produce request is answered with, when count records were given to the client.
func (p *Pace) Answer(count int) Answer {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	return Answer{"failed": p.failed + count - p.Settled, "why": p.why, "stall_ms": p.longest.Milliseconds()}
}

// Member is what a group's member has read and owns.
type Member struct {
	mutex    sync.Mutex
	file     *os.File
	limit    *int
	read     int
	next     map[int32]int64
	assigned map[int32]bool
	failed   string
}

// NewMember writes what it reads to the file of the request.
func NewMember(request Request) (*Member, error) {
	file, err := os.Create(request.File)
	return &Member{file: file, limit: request.Limit, next: map[int32]int64{}, assigned: map[int32]bool{}}, err
}

// Row takes a record, unless the limit was reached.
func (m *Member) Row(partition int32, offset int64, key, value []byte) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if m.limit != nil && m.read >= *m.limit {
		return
	}
	fmt.Fprintf(m.file, "%d %d %s %s\n", partition, offset, key, value)
	m.next[partition] = offset + 1
	m.read++
}

// Take is the next offset of those of the partitions that have something uncommitted, for the last time.
func (m *Member) Take(partitions []int32) map[int32]int64 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	taken := map[int32]int64{}
	for _, partition := range partitions {
		if offset, found := m.next[partition]; found {
			taken[partition] = offset
			delete(m.next, partition)
		}
	}
	return taken
}

// Owns says whether partitions were got or given up.
func (m *Member) Owns(partitions []int32, got bool) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	for _, partition := range partitions {
		if got {
			m.assigned[partition] = true
		} else {
			delete(m.assigned, partition)
		}
	}
}

// Fail keeps an error for the next State.
func (m *Member) Fail(err error) {
	if err != nil {
		m.mutex.Lock()
		defer m.mutex.Unlock()
		m.failed = err.Error()
	}
}

// State is what a state request is answered with.
func (m *Member) State() Answer {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	assigned := []int32{}
	for partition := range m.assigned {
		assigned = append(assigned, partition)
	}
	return Answer{"assigned": assigned, "read": m.read, "failed": m.failed}
}
