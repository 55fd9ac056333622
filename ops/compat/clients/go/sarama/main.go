// Driver of sarama.
package main

import (
	"context"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"strandline.compat/driver"
)

var (
	servers    = strings.Split(os.Args[len(os.Args)-1], ",")
	group      sarama.ConsumerGroup
	member     *driver.Member
	ending     context.CancelFunc
	stopped    chan struct{}
	codecs     = map[string]sarama.CompressionCodec{"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD}
	strategies = map[string]func() sarama.BalanceStrategy{"classic": sarama.NewBalanceStrategyRange,
		"cooperative": sarama.NewBalanceStrategyCooperativeSticky}
)

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.MaxVersion
	return config
}

func withAdmin(work func(sarama.ClusterAdmin) (driver.Answer, error)) (driver.Answer, error) {
	admin, err := sarama.NewClusterAdmin(servers, config())
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	return work(admin)
}

func version(driver.Request) (driver.Answer, error) {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == "github.com/IBM/sarama" {
			return driver.Answer{"version": dependency.Version}, nil
		}
	}
	return driver.Answer{"version": "?"}, nil
}

func create(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(admin sarama.ClusterAdmin) (driver.Answer, error) {
		detail := &sarama.TopicDetail{NumPartitions: r.Partitions, ReplicationFactor: r.Replicas}
		return nil, admin.CreateTopic(r.Topic, detail, false)
	})
}

func produce(r driver.Request) (driver.Answer, error) {
	config := config()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Compression = codecs[r.Codec]
	config.Producer.Return.Successes = true
	config.Producer.Flush.Frequency = 5 * time.Millisecond
	config.Producer.Retry.Max = 100
	// Idempotence is off unless asked for; and with a retry it is either that or one request at a time that keeps the order.
	config.Net.MaxOpenRequests = 1
	config.Producer.Idempotent = r.Idempotent != nil && *r.Idempotent
	producer, err := sarama.NewAsyncProducer(servers, config)
	if err != nil {
		return nil, err
	}
	pace, both := driver.NewPace(r.Rate), sync.WaitGroup{}
	both.Go(func() {
		for message := range producer.Successes() {
			pace.Acknowledged(message.Metadata.(time.Time), nil)
		}
	})
	both.Go(func() {
		for failure := range producer.Errors() {
			pace.Acknowledged(failure.Msg.Metadata.(time.Time), failure.Err)
		}
	})
	for n := range r.Count {
		pace.Due(n)
		key, value := driver.Record(r.Tag, n)
		producer.Input() <- &sarama.ProducerMessage{Topic: r.Topic, Key: sarama.ByteEncoder(key), Value: sarama.ByteEncoder(value), Metadata: time.Now()}
	}
	producer.AsyncClose()
	both.Wait()
	return pace.Answer(r.Count), nil
}

// handler holds a partition from the beginning to the end of its claim, whichever protocol takes it away.
type handler struct{ topic string }

func (h handler) Setup(sarama.ConsumerGroupSession) error { return nil }

func (h handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	mine := []int32{claim.Partition()}
	member.Owns(mine, true)
	for {
		select {
		case message, open := <-claim.Messages():
			if open {
				member.Row(message.Partition, message.Offset, message.Key, message.Value)
				continue
			}
		case <-session.Context().Done():
		}
		for partition, offset := range member.Take(mine) {
			session.MarkOffset(h.topic, partition, offset, "")
		}
		session.Commit()
		member.Owns(mine, false)
		return nil
	}
}

func join(r driver.Request) (driver.Answer, error) {
	strategy, found := strategies[r.Protocol]
	if !found {
		return nil, driver.NotAvailable("no KIP-848")
	}
	config := config()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{strategy()}
	var err error
	if member, err = driver.NewMember(r); err != nil {
		return nil, err
	}
	if group, err = sarama.NewConsumerGroup(servers, r.Group, config); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ending, stopped = cancel, make(chan struct{})
	go func() {
		defer close(stopped)
		for ctx.Err() == nil {
			if err := group.Consume(ctx, []string{r.Topic}, handler{r.Topic}); err != nil && ctx.Err() == nil {
				// While a coordinator moves this is an error; the loop is how sarama wants it to be tried again.
				time.Sleep(100 * time.Millisecond)
			}
		}
	}()
	return nil, nil
}

func state(driver.Request) (driver.Answer, error) { return member.State(), nil }

func leave(driver.Request) (driver.Answer, error) {
	ending()
	<-stopped
	if err := group.Close(); err != nil {
		// Everything is committed; sarama does not look for the coordinator again to say that it leaves.
		println(err.Error())
	}
	return member.State(), nil
}

func lookup(r driver.Request) (driver.Answer, error) {
	client, err := sarama.NewClient(servers, config())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	partitions, err := client.Partitions(r.Topic)
	offsets := map[int32]int64{}
	for _, partition := range partitions {
		if offsets[partition], err = client.GetOffset(r.Topic, partition, r.Timestamp); err != nil {
			return nil, err
		}
	}
	return driver.Answer{"offsets": offsets}, err
}

func configs(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(admin sarama.ClusterAdmin) (driver.Answer, error) {
		change := map[string]sarama.IncrementalAlterConfigsEntry{r.Key: {Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &r.Value}}
		if err := admin.IncrementalAlterConfig(sarama.TopicResource, r.Topic, change, false); err != nil {
			return nil, err
		}
		entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: r.Topic, ConfigNames: []string{r.Key}})
		if err != nil {
			return nil, err
		}
		return driver.Answer{"value": entries[0].Value}, nil
	})
}

func groups(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(admin sarama.ClusterAdmin) (driver.Answer, error) {
		listed, err := admin.ListConsumerGroups()
		if err != nil {
			return nil, err
		}
		described, err := admin.DescribeConsumerGroups([]string{r.Group})
		if err != nil {
			return nil, err
		}
		offsets, err := admin.ListConsumerGroupOffsets(r.Group, nil)
		if err != nil {
			return nil, err
		}
		committed := map[int32]int64{}
		for partition, block := range offsets.Blocks[r.Topic] {
			committed[partition] = block.Offset
		}
		_, found := listed[r.Group]
		return driver.Answer{"listed": found, "state": described[0].State, "committed": committed}, nil
	})
}

func remove(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(admin sarama.ClusterAdmin) (driver.Answer, error) {
		if err := admin.DeleteConsumerGroup(r.Group); err != nil {
			return nil, err
		}
		return nil, admin.DeleteTopic(r.Topic)
	})
}

func main() {
	driver.Serve(map[string]driver.Handler{"version": version, "create": create, "produce": produce, "join": join,
		"state": state, "leave": leave, "lookup": lookup, "configs": configs, "groups": groups, "delete": remove})
}
