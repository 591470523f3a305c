"""Templates of the files that Slurm's daemons read."""

from __future__ import annotations

SLURM = """\
ClusterName=s1test
SlurmctldHost={controller}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# How long a requeued job waits before it may start again (Slurm's default is 120 s).
AuthInfo=socket={folder}/run/munge.socket,cred_expire=12
CredType=cred/munge
# Daemons listen on what their host name resolves to, which is loopback.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SlurmdTimeout=60
BatchStartTimeout=60
MessageTimeout=30
TCPTimeout=10
KillWait=5
InactiveLimit=0
MinJobAge=600
MaxArraySize=9
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{storage}
{nodes}
PartitionName=main Nodes=ALL Default=YES DefaultTime=60 MaxTime=7-0 PriorityTier=10 PreemptMode=OFF State=UP
PartitionName=spot Nodes=ALL DefaultTime=60 MaxTime=7-0 PriorityTier=1 PreemptMode=REQUEUE State=UP
"""

WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
# The socket of munge towards the database is set here; AuthInfo is not used for that.
AccountingStoragePass={folder}/run/munge.socket
AccountingStorageTRES=gres/gpu"""

WITHOUT_ACCOUNTING = "AccountingStorageType=accounting_storage/none"

SLURMDBD = """\
DbdHost={controller}
DbdAddr=127.0.0.1
DbdPort={dbd}
CommunicationParameters=NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={db}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
CommitDelay=1
"""
