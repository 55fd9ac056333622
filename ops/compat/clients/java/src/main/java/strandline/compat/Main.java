package strandline.compat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.utils.AppInfoParser;

/** Driver of kafka-clients (Java): a line of JSON in, a line out. {@code ops/compat/README.md} has the protocol. */
public final class Main {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static String bootstrap;
    private static Member member;

    public static void main(String[] arguments) throws Exception {
        bootstrap = arguments[arguments.length - 1];
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            ObjectNode answer = JSON.createObjectNode();
            try {
                answer(JSON.readTree(line), answer);
                answer.put("ok", true);
            } catch (Exception error) {
                error.printStackTrace();
                answer.put("error", error.toString());
            }
            System.out.println(answer);
        }
        System.exit(0);
    }

    private static void answer(JsonNode request, ObjectNode answer) throws Exception {
        String topic = request.path("topic").asText();
        switch (request.get("do").asText()) {
            case "version" -> answer.put("version", AppInfoParser.getVersion());
            case "create" -> create(topic, request);
            case "produce" -> Produce.run(bootstrap, topic, request, answer);
            case "join" -> {
                member = new Member(bootstrap, topic, request);
                member.start();
            }
            case "state" -> member.state(answer);
            case "leave" -> member.leave(answer);
            case "lookup" -> lookup(topic, request.get("timestamp").asLong(), answer);
            case "configs" -> configs(topic, request, answer);
            case "groups" -> groups(request.get("group").asText(), answer);
            case "delete" -> delete(topic, request.get("group").asText());
            case "programs" -> answer.put("na", "see the tools");
            default -> throw new IllegalArgumentException(request.toString());
        }
    }

    static Properties properties(Object... pairs) {
        Properties properties = new Properties();
        for (int n = 0; n < pairs.length; n += 2) {
            properties.put(pairs[n], pairs[n + 1]);
        }
        return properties;
    }

    private static Admin admin() {
        return Admin.create(properties("bootstrap.servers", bootstrap));
    }

    private static void create(String topic, JsonNode request) throws Exception {
        try (Admin admin = admin()) {
            int partitions = request.get("partitions").asInt();
            short replicas = (short) request.get("replicas").asInt();
            admin.createTopics(List.of(new NewTopic(topic, partitions, replicas))).all().get(30, TimeUnit.SECONDS);
        }
    }

    private static void lookup(String topic, long timestamp, ObjectNode answer) {
        ObjectNode offsets = answer.putObject("offsets");
        Properties settings = properties("bootstrap.servers", bootstrap);
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            Map<TopicPartition, Long> asked = consumer.partitionsFor(topic).stream()
                .collect(Collectors.toMap(p -> new TopicPartition(topic, p.partition()), p -> timestamp));
            consumer.offsetsForTimes(asked).forEach((place, found) ->
                offsets.put(Integer.toString(place.partition()), found == null ? -1 : found.offset()));
        }
    }

    private static void configs(String topic, JsonNode request, ObjectNode answer) throws Exception {
        String key = request.get("key").asText();
        ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        ConfigEntry entry = new ConfigEntry(key, request.get("value").asText());
        try (Admin admin = admin()) {
            Map<ConfigResource, java.util.Collection<AlterConfigOp>> change =
                Map.of(resource, List.of(new AlterConfigOp(entry, AlterConfigOp.OpType.SET)));
            admin.incrementalAlterConfigs(change).all().get(30, TimeUnit.SECONDS);
            var described = admin.describeConfigs(List.of(resource)).all().get(30, TimeUnit.SECONDS);
            answer.put("value", described.get(resource).get(key).value());
        }
    }

    private static void groups(String group, ObjectNode answer) throws Exception {
        try (Admin admin = admin()) {
            var listed = admin.listGroups().all().get(30, TimeUnit.SECONDS);
            var described = admin.describeConsumerGroups(List.of(group)).all().get(30, TimeUnit.SECONDS);
            Map<TopicPartition, OffsetAndMetadata> offsets =
                admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get(30, TimeUnit.SECONDS);
            answer.put("listed", listed.stream().anyMatch(each -> each.groupId().equals(group)));
            answer.put("state", described.get(group).groupState().toString());
            ObjectNode committed = answer.putObject("committed");
            offsets.forEach((place, at) -> committed.put(Integer.toString(place.partition()), at.offset()));
        }
    }

    private static void delete(String topic, String group) throws Exception {
        try (Admin admin = admin()) {
            admin.deleteConsumerGroups(List.of(group)).all().get(30, TimeUnit.SECONDS);
            admin.deleteTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
        }
    }

    private Main() {}
}
