// Driver of franz-go.
package main

import (
	"context"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"strandline.compat/driver"
)

var (
	servers = strings.Split(os.Args[len(os.Args)-1], ",")
	client  *kgo.Client
	member  *driver.Member
	stopped chan struct{}
	codecs  = map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
)

func deadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), 30*time.Second)
}

func withAdmin(work func(context.Context, *kadm.Client) (driver.Answer, error)) (driver.Answer, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(servers...))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := deadline()
	defer cancel()
	return work(ctx, kadm.NewClient(client))
}

func version(driver.Request) (driver.Answer, error) {
	info, _ := debug.ReadBuildInfo()
	for _, dependency := range info.Deps {
		if dependency.Path == "github.com/twmb/franz-go" {
			return driver.Answer{"version": dependency.Version}, nil
		}
	}
	return driver.Answer{"version": "?"}, nil
}

func create(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(ctx context.Context, admin *kadm.Client) (driver.Answer, error) {
		_, err := admin.CreateTopic(ctx, r.Partitions, r.Replicas, nil, r.Topic)
		return nil, err
	})
}

func produce(r driver.Request) (driver.Answer, error) {
	options := []kgo.Opt{kgo.SeedBrokers(servers...), kgo.DefaultProduceTopic(r.Topic), kgo.ProducerLinger(5 * time.Millisecond),
		kgo.ProducerBatchCompression(codecs[r.Codec])}
	if r.Idempotent != nil && !*r.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	pace := driver.NewPace(r.Rate)
	for n := range r.Count {
		pace.Due(n)
		key, value := driver.Record(r.Tag, n)
		sent := time.Now()
		client.Produce(ctx, &kgo.Record{Key: key, Value: value}, func(_ *kgo.Record, err error) { pace.Acknowledged(sent, err) })
	}
	if err := client.Flush(ctx); err != nil {
		return nil, err
	}
	return pace.Answer(r.Count), nil
}

func commit(offsets map[int32]int64, topic string) {
	if len(offsets) == 0 {
		return
	}
	places := map[int32]kgo.EpochOffset{}
	for partition, offset := range offsets {
		places[partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
	}
	ctx, cancel := deadline()
	defer cancel()
	done := make(chan error, 1)
	client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: places},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			if err == nil {
				for _, topic := range response.Topics {
					for _, partition := range topic.Partitions {
						err = kerr.ErrorForCode(partition.ErrorCode)
					}
				}
			}
			done <- err
		})
	member.Fail(<-done)
}

func join(r driver.Request) (driver.Answer, error) {
	var err error
	if member, err = driver.NewMember(r); err != nil {
		return nil, err
	}
	options := []kgo.Opt{kgo.SeedBrokers(servers...), kgo.ConsumerGroup(r.Group), kgo.ConsumeTopics(r.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			member.Owns(got[r.Topic], true)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			if len(gone[r.Topic]) > 0 {
				commit(member.Take(gone[r.Topic]), r.Topic)
				member.Owns(gone[r.Topic], false)
			}
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			member.Owns(gone[r.Topic], false)
		})}
	switch r.Protocol {
	case "classic":
		options = append(options, kgo.Balancers(kgo.RangeBalancer()), kgo.SessionTimeout(10*time.Second))
	case "cooperative":
		options = append(options, kgo.Balancers(kgo.CooperativeStickyBalancer()), kgo.SessionTimeout(10*time.Second))
	case "consumer":
		options = append(options, kgo.Balancers(kgo.RangeBalancer()), kgo.ServerSideBalancer())
	}
	if client, err = kgo.NewClient(options...); err != nil {
		return nil, err
	}
	stopped = make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			fetches := client.PollFetches(context.Background())
			if fetches.IsClientClosed() {
				return
			}
			fetches.EachRecord(func(record *kgo.Record) {
				member.Row(record.Partition, record.Offset, record.Key, record.Value)
			})
			client.AllowRebalance()
		}
	}()
	return nil, nil
}

func state(driver.Request) (driver.Answer, error) { return member.State(), nil }

func leave(driver.Request) (driver.Answer, error) {
	client.CloseAllowingRebalance()
	<-stopped
	return member.State(), nil
}

func lookup(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(ctx context.Context, admin *kadm.Client) (driver.Answer, error) {
		listed, err := admin.ListOffsetsAfterMilli(ctx, r.Timestamp, r.Topic)
		if err != nil {
			return nil, err
		}
		offsets := map[int32]int64{}
		listed.Each(func(offset kadm.ListedOffset) { offsets[offset.Partition] = offset.Offset })
		return driver.Answer{"offsets": offsets}, listed.Error()
	})
}

func configs(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(ctx context.Context, admin *kadm.Client) (driver.Answer, error) {
		change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: r.Key, Value: &r.Value}}
		altered, err := admin.AlterTopicConfigs(ctx, change, r.Topic)
		if err != nil {
			return nil, err
		}
		if err := altered[0].Err; err != nil {
			return nil, err
		}
		described, err := admin.DescribeTopicConfigs(ctx, r.Topic)
		if err != nil {
			return nil, err
		}
		for _, config := range described[0].Configs {
			if config.Key == r.Key {
				return driver.Answer{"value": config.MaybeValue()}, nil
			}
		}
		return driver.Answer{"value": nil}, described[0].Err
	})
}

func groups(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(ctx context.Context, admin *kadm.Client) (driver.Answer, error) {
		listed, err := admin.ListGroups(ctx)
		if err != nil {
			return nil, err
		}
		described, err := admin.DescribeGroups(ctx, r.Group)
		if err != nil {
			return nil, err
		}
		offsets, err := admin.FetchOffsets(ctx, r.Group)
		if err != nil {
			return nil, err
		}
		committed := map[int32]int64{}
		offsets.Each(func(offset kadm.OffsetResponse) { committed[offset.Partition] = offset.At })
		_, found := listed[r.Group]
		return driver.Answer{"listed": found, "state": described[r.Group].State, "committed": committed}, nil
	})
}

func remove(r driver.Request) (driver.Answer, error) {
	return withAdmin(func(ctx context.Context, admin *kadm.Client) (driver.Answer, error) {
		if _, err := admin.DeleteGroup(ctx, r.Group); err != nil {
			return nil, err
		}
		_, err := admin.DeleteTopic(ctx, r.Topic)
		return nil, err
	})
}

func main() {
	driver.Serve(map[string]driver.Handler{"version": version, "create": create, "produce": produce, "join": join,
		"state": state, "leave": leave, "lookup": lookup, "configs": configs, "groups": groups, "delete": remove})
}
