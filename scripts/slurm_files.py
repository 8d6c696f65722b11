"""What a testbed's daemons read: the templates of their files, filled in by `slurm_testbed.py`."""

# The keys without which this does not work:
# - munge's socket is private, so accounting must be told of it too (AccountingStoragePass);
# - a job that is requeued waits for its credential to expire (cred_expire), two minutes by default;
# - without a default, a job would take all of the node's memory (DefMemPerCPU);
# - the node may claim more than the machine has (config_overrides), for jobs to run side by side.
SLURM_CONF = """\
ClusterName=testbed
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmdPort={slurmd_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/munge.socket,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool
SlurmctldPidFile={dir}/state/slurmctld.pid
SlurmdPidFile={dir}/state/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=2000
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd_port}
AccountingStoragePass={dir}/munge/munge.socket
AccountingStorageTRES=gres/gpu
GresTypes=gpu
NodeName=testbed NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=64000 Gres=gpu:2
PartitionName=normal Nodes=testbed Default=YES PriorityTier=1 PreemptMode=OFF
PartitionName=low Nodes=testbed PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes=testbed PriorityTier=2 PreemptMode=OFF
"""

# Two graphics cards that do nothing, so that jobs which ask for one can run.
GRES_CONF = """\
NodeName=testbed Name=gpu File=/dev/null
NodeName=testbed Name=gpu File=/dev/zero
"""

# By TCP and not by a socket: slurmdbd's client library knows only the socket of the machine's own
# MariaDB.
SLURMDBD_CONF = """\
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={slurmdbd_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge/munge.socket
PidFile={dir}/state/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
"""

DATABASE_SQL = """\
CREATE DATABASE slurm;
CREATE USER slurm@127.0.0.1 IDENTIFIED BY '{password}';
GRANT ALL ON slurm.* TO slurm@127.0.0.1;
"""
