"""Devices and processes: data parallelism, connecting processes, and checks of memory."""

from seqnets.devices.available import NotEnoughMemoryError as NotEnoughMemoryError
from seqnets.devices.available import check_memory as check_memory
from seqnets.devices.cores import host_device as host_device
from seqnets.devices.cores import usable_cores as usable_cores
from seqnets.devices.cores import use_all_cores as use_all_cores
from seqnets.devices.data_parallel import DataParallel as DataParallel
from seqnets.devices.data_parallel import data_parallel as data_parallel
from seqnets.devices.memory import check_training_memory as check_training_memory
from seqnets.devices.memory import memory_of as memory_of
from seqnets.devices.peer_monitor import PeerMonitor as PeerMonitor
from seqnets.devices.processes import LeadError as LeadError
from seqnets.devices.processes import connect as connect
from seqnets.devices.processes import peers as peers
from seqnets.devices.rendezvous import MissingPeersError as MissingPeersError
