#!/bin/sh
# Starts a Slurm cluster of this one machine in the folder $1 and stays until it is told to end.
# Needs Debian's slurm-wlm and munge, and root. Prints "ready" when jobs can be submitted.
set -eu
folder=$1
mkdir -p "$folder/state" "$folder/spool"
secret=$(mktemp -d) # $folder may lie where only root may go
dd if=/dev/urandom of="$secret/key" bs=1024 count=1 2>/dev/null
chmod 400 "$secret/key"
chown -R munge "$secret"
socket=/run/munge/munge.socket.2
mkdir -p /run/munge
chown munge /run/munge
cat >"$folder/slurm.conf" <<END
ClusterName=test
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
AuthType=auth/munge
AuthInfo=socket=$socket
CryptoType=crypto/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SlurmUser=root
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
SchedulerParameters=requeue_delay=1
SlurmdParameters=config_overrides
KillWait=5
MailProg=/bin/true
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
export SLURM_CONF="$folder/slurm.conf"
as_munge() { setpriv --reuid=munge --regid=munge --clear-groups "$@"; }
as_munge munged --foreground --key-file="$secret/key" --socket=$socket \
  --log-file="$secret/log" --pid-file="$secret/pid" --seed-file="$secret/seed" &
munge=$!
sleep 1
slurmctld -D -f "$SLURM_CONF" &
control=$!
slurmd -D -f "$SLURM_CONF" &
daemon=$!
end() {
  kill $daemon $control $munge 2>/dev/null || true
  sleep 5 # slurmd would wait for steps that can no longer reach their controller
  kill -9 $daemon $control $munge 2>/dev/null || true
  rm -rf "$secret"
}
trap end EXIT
trap 'exit 0' TERM INT
for _ in $(seq 60); do
  if [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ]; then
    echo ready
    wait $daemon
    exit 1
  fi
  sleep 0.5
done
echo "no node became idle; see $folder/*.log" >&2
exit 1
