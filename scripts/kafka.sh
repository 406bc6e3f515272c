#!/usr/bin/env bash
# A real Apache Kafka of one node or more, for tests and for trying things: from its Maven artifacts, without Docker.
#
#   scripts/kafka.sh start DIR [NAME=VALUE ...]   start it and wait until it serves; prints its address
#   scripts/kafka.sh stop DIR                     let it shut down in good order
#   scripts/kafka.sh kill DIR                     SIGKILL, as if the machine had failed; `start` brings it back
#   scripts/kafka.sh restart DIR                  stop, then start, at the same address
#   scripts/kafka.sh attend DIR [NAME=VALUE ...]  start it and keep it until standard input ends, then kill it and remove
#                                                 DIR: whoever holds the other end of the pipe takes it along
#   scripts/kafka.sh address DIR                  print its address
#   scripts/kafka.sh tool DIR|HOST:PORT TOOL ...  one of Kafka's own command-line tools, connected to it:
#                                                 acls, configs, console-consumer, console-producer,
#                                                 consumer-groups, delete-records, get-offsets, topics, transactions
#
# All that a broker keeps is in DIR, its ports and settings included; NAME=VALUE are settings of the broker, which count
# when DIR is new. A DIR that was never started gets two free ports. With `nodes=3` among the settings it gets three
# nodes, in DIR/1 to DIR/3, each of which holds a copy of everything; they can be killed and started one by one.
#
#   MILLSTREAM_KAFKA_LIBS  where the artifacts are kept, 130 MB; default ~/.cache/millstream-kafka
set -euo pipefail
SELF=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/kafka
VERSION=$(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$SELF/pom.xml")
LIBS=${MILLSTREAM_KAFKA_LIBS:-$HOME/.cache/millstream-kafka}/$VERSION
PATIENCE_SECONDS=120

say() { printf 'kafka: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# The artifacts appear under their name when they are complete, so that several may fetch them at once.
fetch() {
    [ ! -d "$LIBS" ] || return 0
    command -v mvn >/dev/null || die "Maven is missing: make setup"
    local part
    mkdir -p "$(dirname "$LIBS")"
    part=$(mktemp -d "$LIBS.XXXXXX")
    say "fetching Apache Kafka $VERSION (once)"
    mvn -q -B -f "$SELF/pom.xml" dependency:copy-dependencies -DoutputDirectory="$part" >&2 \
        || { rm -rf "$part"; die "Maven could not fetch Apache Kafka $VERSION"; }
    mv -T "$part" "$LIBS" 2>/dev/null || rm -rf "$part"
    [ -d "$LIBS" ] || die "there is nothing in $LIBS"
}

jvm() { # jvm OPTIONS... MAIN ARGUMENTS...
    java -XX:+UseSerialGC -Dlog4j2.configurationFile="$SELF/log4j2.properties" -cp "$LIBS/*" "$@"
}
short_jvm() { jvm -Xmx256m -XX:TieredStopAtLevel=1 "$@"; }

# Below the ports that the system gives to clients, so that none of those takes it in between.
free_port() {
    local port
    while :; do
        port=$((16000 + (RANDOM << 15 | RANDOM) % 16000))
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

prepare() { # prepare DIR SETTINGS...
    local dir=$1 nodes=1 setting id
    shift
    for setting; do
        case $setting in nodes=*) nodes=${setting#*=} ;; esac
    done
    if [ "$nodes" = 1 ]; then
        id=$(short_jvm kafka.tools.StorageTool random-uuid | tail -n 1)
        local controller
        controller=$(free_port)
        prepare_node "$dir" 1 "$id" "1@127.0.0.1:$controller" 1 "$@"
        return
    fi
    local node voters="" all=()
    for ((node = 1; node <= nodes; node++)); do
        voters="$voters,$node@127.0.0.1:$(free_port)"
    done
    id=$(short_jvm kafka.tools.StorageTool random-uuid | tail -n 1)
    for ((node = 1; node <= nodes; node++)); do
        prepare_node "$dir/$node" "$node" "$id" "${voters#,}" "$nodes" "$@" &
        all+=($!)
    done
    for node in "${all[@]}"; do wait "$node"; done
}

prepare_node() { # prepare_node DIR NODE CLUSTER VOTERS COPIES SETTINGS...
    local dir=$1 node=$2 cluster=$3 voters=$4 copies=$5 port controller
    shift 5
    mkdir -p "$dir"
    port=$(free_port)
    controller=$(sed "s/.*\b$node@\([^,]*\).*/\1/" <<<"$voters")
    {
        echo "# Written by scripts/kafka.sh. Of two lines with one name the later counts."
        echo "process.roles=broker,controller"
        echo "node.id=$node"
        echo "listeners=CLIENT://127.0.0.1:$port,CONTROLLER://$controller"
        echo "advertised.listeners=CLIENT://127.0.0.1:$port"
        echo "listener.security.protocol.map=CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT"
        echo "inter.broker.listener.name=CLIENT"
        echo "controller.listener.names=CONTROLLER"
        echo "controller.quorum.voters=$voters"
        echo "log.dirs=$dir/log"
        # each node holds a copy of everything; few partitions of its own topics, so that it starts fast
        local name
        for name in offsets.topic transaction.state.log; do
            echo "$name.replication.factor=$copies"
            echo "$name.num.partitions=4"
        done
        echo "transaction.state.log.min.isr=$((copies / 2 + 1))"
        echo "share.coordinator.state.topic.replication.factor=$copies"
        echo "share.coordinator.state.topic.min.isr=$((copies / 2 + 1))"
        echo "group.initial.rebalance.delay.ms=0"
        echo "auto.create.topics.enable=false"
        echo "log.cleaner.dedupe.buffer.size=8388608"
        printf '%s\n' "$@" | grep -v '^nodes=' || true
    } >"$dir/new.properties"
    short_jvm kafka.tools.StorageTool format -t "$cluster" -c "$dir/new.properties" >"$dir/format.out" 2>&1 \
        || die "cannot format $dir: $(tail -n 5 "$dir/format.out")"
    echo "$port" >"$dir/port"
    mv "$dir/new.properties" "$dir/server.properties"
}

# The directories of the nodes of a cluster, or of one of them.
nodes() {
    local node
    for node in "$1" "$1"/[0-9]*; do
        [ ! -f "$node/server.properties" ] || echo "$node"
    done
}

is_alive() { [ -f "$1/pid" ] && kill -0 "$(cat "$1/pid")" 2>/dev/null; }

# In a session of its own, so that what ends the caller by the keyboard does not end the broker.
launch() {
    local dir=$1 own=""
    command -v setsid >/dev/null && own=setsid
    : >"$dir/broker.out"
    # a shell in between, so that this one does not report the end of the broker as that of a job of its own
    ($own java -Xms256m -Xmx1g -XX:+UseG1GC -Dlog4j2.configurationFile="$SELF/log4j2.properties" -cp "$LIBS/*" \
        kafka.Kafka "$dir/server.properties" >"$dir/broker.out" 2>&1 </dev/null &
    echo $! >"$dir/pid")
}

start() {
    local dir deadline node
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    shift
    command -v java >/dev/null || die "Java is missing: make setup"
    fetch
    [ -n "$(nodes "$dir")" ] || prepare "$dir" "$@"
    # a cluster is there when most of its nodes are, so all are launched before one is waited for
    local launched=()
    for node in $(nodes "$dir"); do
        is_alive "$node" && continue
        launch "$node"
        launched+=("$node")
    done
    deadline=$((SECONDS + PATIENCE_SECONDS))
    for node in "${launched[@]}"; do
        until grep -q 'Kafka Server started' "$node/broker.out"; do
            is_alive "$node" || die "the broker has ended: $(tail -n 20 "$node/broker.out")"
            [ $SECONDS -lt $deadline ] || die "no broker after $PATIENCE_SECONDS s, see $node/broker.out"
            sleep 0.1
        done
    done
    address "$dir"
}

address() {
    local node all=""
    for node in $(nodes "$1"); do all="$all,127.0.0.1:$(cat "$node/port")"; done
    echo "${all#,}"
}

# Signals the broker, or all of them, and waits for the end.
end() { # end SIGNAL DIR
    local node
    for node in $(nodes "$2"); do
        is_alive "$node" || continue
        kill "-$1" "$(cat "$node/pid")" 2>/dev/null || true
    done
    for node in $(nodes "$2"); do
        while is_alive "$node"; do sleep 0.05; done
    done
}

attend() {
    local dir=$1
    # shellcheck disable=SC2064
    trap "end KILL '$dir'; rm -rf '$dir'" EXIT
    start "$@"
    cat >/dev/null
}

tool() {
    local server=$1 name=$2 package=org.apache.kafka.tools class
    shift 2
    [ ! -d "$server" ] || server=$(address "$server")
    case $name in
        acls) class=AclCommand ;;
        configs) package=kafka.admin class=ConfigCommand ;;
        console-consumer) class=consumer.ConsoleConsumer ;;
        console-producer) class=ConsoleProducer ;;
        consumer-groups) class=consumer.group.ConsumerGroupCommand ;;
        delete-records) class=DeleteRecordsCommand ;;
        get-offsets) class=GetOffsetShell ;;
        topics) class=TopicCommand ;;
        transactions) class=TransactionsCommand ;;
        *) die "'$name' is none of the tools above: scripts/kafka.sh" ;;
    esac
    fetch
    short_jvm "$package.$class" --bootstrap-server "$server" "$@"
}

usage() { sed -n '2,/^set/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//' >&2; exit 2; }

[ $# -ge 2 ] || usage
command=$1
shift
case $command in
    start | attend | address | tool) "$command" "$@" ;;
    stop) end TERM "$1" ;;
    kill) end KILL "$1" ;;
    restart) end TERM "$1"; start "$1" ;;
    *) usage ;;
esac
